// Cells of the ECP5 for the simulation of a netlist: Yosys' own models, but for block RAM and
// multiplier, which it has as black boxes only.
//
// Of the block RAM DP16KD is modelled what synth_ecp5 makes of a memory (brams_map_16kd.v of Yosys):
// two ports without output registers, one clock edge, synchronous reset of the outputs; or, with a
// port of 36 bits, A to write and B to read. Contents begin undefined, which Verilator makes random:
// INITVAL is ignored, since our memories have none. The addresses of a port count bits in units of
// its width, as in Lattice's TN1264.

/* verilator lint_off DECLFILENAME */
/* verilator lint_off MULTITOP */

`define NO_INCLUDES
`include "common_sim.vh"
`include "ccu2c_sim.vh"

module DP16KD #(
    parameter DATA_WIDTH_A = 18,
    parameter DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA",
    parameter CLKBMUX = "CLKB",
    parameter GSR = "AUTO",
    parameter [319:0] INITVAL_00 = 320'b0,
    parameter [319:0] INITVAL_01 = 320'b0,
    parameter [319:0] INITVAL_02 = 320'b0,
    parameter [319:0] INITVAL_03 = 320'b0,
    parameter [319:0] INITVAL_04 = 320'b0,
    parameter [319:0] INITVAL_05 = 320'b0,
    parameter [319:0] INITVAL_06 = 320'b0,
    parameter [319:0] INITVAL_07 = 320'b0,
    parameter [319:0] INITVAL_08 = 320'b0,
    parameter [319:0] INITVAL_09 = 320'b0,
    parameter [319:0] INITVAL_0A = 320'b0,
    parameter [319:0] INITVAL_0B = 320'b0,
    parameter [319:0] INITVAL_0C = 320'b0,
    parameter [319:0] INITVAL_0D = 320'b0,
    parameter [319:0] INITVAL_0E = 320'b0,
    parameter [319:0] INITVAL_0F = 320'b0,
    parameter [319:0] INITVAL_10 = 320'b0,
    parameter [319:0] INITVAL_11 = 320'b0,
    parameter [319:0] INITVAL_12 = 320'b0,
    parameter [319:0] INITVAL_13 = 320'b0,
    parameter [319:0] INITVAL_14 = 320'b0,
    parameter [319:0] INITVAL_15 = 320'b0,
    parameter [319:0] INITVAL_16 = 320'b0,
    parameter [319:0] INITVAL_17 = 320'b0,
    parameter [319:0] INITVAL_18 = 320'b0,
    parameter [319:0] INITVAL_19 = 320'b0,
    parameter [319:0] INITVAL_1A = 320'b0,
    parameter [319:0] INITVAL_1B = 320'b0,
    parameter [319:0] INITVAL_1C = 320'b0,
    parameter [319:0] INITVAL_1D = 320'b0,
    parameter [319:0] INITVAL_1E = 320'b0,
    parameter [319:0] INITVAL_1F = 320'b0,
    parameter [319:0] INITVAL_20 = 320'b0,
    parameter [319:0] INITVAL_21 = 320'b0,
    parameter [319:0] INITVAL_22 = 320'b0,
    parameter [319:0] INITVAL_23 = 320'b0,
    parameter [319:0] INITVAL_24 = 320'b0,
    parameter [319:0] INITVAL_25 = 320'b0,
    parameter [319:0] INITVAL_26 = 320'b0,
    parameter [319:0] INITVAL_27 = 320'b0,
    parameter [319:0] INITVAL_28 = 320'b0,
    parameter [319:0] INITVAL_29 = 320'b0,
    parameter [319:0] INITVAL_2A = 320'b0,
    parameter [319:0] INITVAL_2B = 320'b0,
    parameter [319:0] INITVAL_2C = 320'b0,
    parameter [319:0] INITVAL_2D = 320'b0,
    parameter [319:0] INITVAL_2E = 320'b0,
    parameter [319:0] INITVAL_2F = 320'b0,
    parameter [319:0] INITVAL_30 = 320'b0,
    parameter [319:0] INITVAL_31 = 320'b0,
    parameter [319:0] INITVAL_32 = 320'b0,
    parameter [319:0] INITVAL_33 = 320'b0,
    parameter [319:0] INITVAL_34 = 320'b0,
    parameter [319:0] INITVAL_35 = 320'b0,
    parameter [319:0] INITVAL_36 = 320'b0,
    parameter [319:0] INITVAL_37 = 320'b0,
    parameter [319:0] INITVAL_38 = 320'b0,
    parameter [319:0] INITVAL_39 = 320'b0,
    parameter [319:0] INITVAL_3A = 320'b0,
    parameter [319:0] INITVAL_3B = 320'b0,
    parameter [319:0] INITVAL_3C = 320'b0,
    parameter [319:0] INITVAL_3D = 320'b0,
    parameter [319:0] INITVAL_3E = 320'b0,
    parameter [319:0] INITVAL_3F = 320'b0
) (
        input  DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0,
        input  ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1,
        ADA0,
        input  CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
        output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0,
        input  DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0,
        input  ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1,
        ADB0,
        input  CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
        output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
);
    // 1024 words of 18 bits, of which a byte has nine.
    reg [17:0] words [0:1023];
    reg [17:0] doa, dob;
    wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7,
        DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2,
        ADA1, ADA0};
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0} = doa;
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7,
        DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2,
        ADB1, ADB0};
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0} = dob;

    localparam WIDE = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;

    // Bits of a word that a port of a width below 18 has, moved to the low bits.
    function [17:0] part(input [17:0] word, input [3:0] address, input integer width);
        case (width)
            1: part = {17'b0, word[9 * address[3] + address[2:0]]};
            2: part = {16'b0, word[9 * address[3] + 2 * address[2:1] +: 2]};
            4: part = {14'b0, word[9 * address[3] + 4 * address[2] +: 4]};
            9: part = {9'b0, word[9 * address[3] +: 9]};
            default: part = word;
        endcase
    endfunction

    // The word with those bits replaced; of 18 bits the lowest two of the address are byte enables.
    function [17:0] merged(
        input [17:0] word, input [17:0] given, input [3:0] address, input integer width
    );
        merged = word;
        case (width)
            1: merged[9 * address[3] + address[2:0]] = given[0];
            2: merged[9 * address[3] + 2 * address[2:1] +: 2] = given[1:0];
            4: merged[9 * address[3] + 4 * address[2] +: 4] = given[3:0];
            9: merged[9 * address[3] +: 9] = given[8:0];
            default: begin
                if (address[0]) merged[8:0] = given[8:0];
                if (address[1]) merged[17:9] = given[17:9];
            end
        endcase
    endfunction

    generate
        if (DATA_WIDTH_A == 36) begin : write_wide
            // Byte enables of the upper half are the next two bits of the address.
            always @(posedge CLKA)
                if (CEA && WEA) begin
                    words[{ada[13:5], 1'b0}] <= merged(words[{ada[13:5], 1'b0}], dia, ada[3:0], 18);
                    words[{ada[13:5], 1'b1}] <=
                        merged(words[{ada[13:5], 1'b1}], dib, {2'b0, ada[3:2]}, 18);
                end
        end else begin : write_narrow
            always @(posedge CLKA) begin
                if (CEA && WEA && !RSTA)
                    words[ada[13:4]] <= merged(words[ada[13:4]], dia, ada[3:0], DATA_WIDTH_A);
            end
        end
        if (DATA_WIDTH_B == 36) begin : read_wide
            always @(posedge CLKB)
                if (RSTB) {dob, doa} <= 36'b0;
                else if (CEB) {dob, doa} <= {words[{adb[13:5], 1'b1}], words[{adb[13:5], 1'b0}]};
        end else begin : read_b
            always @(posedge CLKB) begin
                if (RSTB) dob <= 18'b0;
                else if (CEB) begin
                    if (!WEB || WRITEMODE_B == "READBEFOREWRITE")
                        dob <= part(words[adb[13:4]], adb[3:0], DATA_WIDTH_B);
                    else if (WRITEMODE_B == "WRITETHROUGH")
                        dob <= part(
                            merged(words[adb[13:4]], dib, adb[3:0], DATA_WIDTH_B),
                            adb[3:0], DATA_WIDTH_B);
                end
            end
        end
        if (!WIDE) begin : two_ports
            always @(posedge CLKA) begin
                if (RSTA) doa <= 18'b0;
                else if (CEA) begin
                    if (!WEA || WRITEMODE_A == "READBEFOREWRITE")
                        doa <= part(words[ada[13:4]], ada[3:0], DATA_WIDTH_A);
                    else if (WRITEMODE_A == "WRITETHROUGH")
                        doa <= part(
                            merged(words[ada[13:4]], dia, ada[3:0], DATA_WIDTH_A),
                            ada[3:0], DATA_WIDTH_A);
                end
            end
            always @(posedge CLKB)
                if (CEB && WEB && !RSTB)
                    words[adb[13:4]] <= merged(words[adb[13:4]], dib, adb[3:0], DATA_WIDTH_B);
        end else if (DATA_WIDTH_B != 36) begin : no_low
            always @(*) doa = 18'b0;
        end
    endgenerate
endmodule

// The multiplier, without registers: what synth_ecp5 makes of a product.
module MULT18X18D (
    input  A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input  B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input  C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input  SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
        P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    wire signed [18:0] a = {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6,
        A5, A4, A3, A2, A1, A0};
    wire signed [18:0] b = {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6,
        B5, B4, B3, B2, B1, B0};
    wire signed [37:0] product = a * b;
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} =
        product[35:0];
endmodule
