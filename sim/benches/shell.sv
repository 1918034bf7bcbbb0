// The host shell with a checker of the AXI rules at each of its ports.
//
// `broken` has three bits to each channel, lowest first in the order s_axi AW, W, B, AR, R, s_axis,
// m_axis; a bit that is set stays. Bit 0: VALID fell before READY. Bit 1: the payload changed before
// READY. Bit 2: VALID during reset. A 1 in `tamper` makes the checker of that channel see VALID
// inverted, and a 1 in `twist` the lowest bit of its payload, so that a bench can ask whether the
// checker would find it.

module prap_axi_rules #(
    parameter int WIDTH = 1
) (
    input  logic             clk,
    input  logic             resetn,
    input  logic             valid,
    input  logic             ready,
    input  logic             twist,
    input  logic [WIDTH-1:0] payload,
    output logic [2:0]       broken
);
    logic waiting = 0;
    logic [WIDTH-1:0] held = 0;
    logic [WIDTH-1:0] seen;
    assign seen = payload ^ WIDTH'(twist);
    initial broken = 0;
    always_ff @(posedge clk) begin
        waiting <= resetn && valid && !ready;
        held <= seen;
        if (resetn && waiting && !valid) broken[0] <= 1;
        if (resetn && waiting && seen != held) broken[1] <= 1;
        if (!resetn && valid) broken[2] <= 1;
    end
endmodule

module prap_bench (
    input  logic        aclk,
    input  logic        aresetn,
    input  logic [6:0]  tamper,
    input  logic [6:0]  twist,
    output logic [20:0] broken,
    output logic [63:0] cycle,
    input  logic [11:0] s_axi_awaddr,
    input  logic [2:0]  s_axi_awprot,
    input  logic        s_axi_awvalid,
    output logic        s_axi_awready,
    input  logic [31:0] s_axi_wdata,
    input  logic [3:0]  s_axi_wstrb,
    input  logic        s_axi_wvalid,
    output logic        s_axi_wready,
    output logic [1:0]  s_axi_bresp,
    output logic        s_axi_bvalid,
    input  logic        s_axi_bready,
    input  logic [11:0] s_axi_araddr,
    input  logic [2:0]  s_axi_arprot,
    input  logic        s_axi_arvalid,
    output logic        s_axi_arready,
    output logic [31:0] s_axi_rdata,
    output logic [1:0]  s_axi_rresp,
    output logic        s_axi_rvalid,
    input  logic        s_axi_rready,
    input  logic [63:0] s_axis_tdata,
    input  logic [7:0]  s_axis_tkeep,
    input  logic        s_axis_tlast,
    input  logic        s_axis_tvalid,
    output logic        s_axis_tready,
    output logic [63:0] m_axis_tdata,
    output logic [7:0]  m_axis_tkeep,
    output logic        m_axis_tlast,
    output logic        m_axis_tuser,
    output logic        m_axis_tvalid,
    input  logic        m_axis_tready,
    output logic        irq,
    output logic        core_reset
);
`ifdef PRAP_OPEN
    // Crossbars that take cells, and then neither take a request nor answer.
    /* verilator lint_off PINCONNECTEMPTY */
    `PRAP_TOP shell (
        .*,
        .crossbar__program__ready(1'b1),
        .crossbar__program__valid(),
        .crossbar__program__payload(),
        .crossbar__request__ready(1'b0),
        .crossbar__request__valid(),
        .crossbar__request__payload(),
        .crossbar__response__ready(),
        .crossbar__response__valid(1'b0),
        .crossbar__response__payload('0)
    );
    /* verilator lint_on PINCONNECTEMPTY */
`else
    `PRAP_TOP shell (.*);
`endif

    initial cycle = 0;
    always_ff @(posedge aclk) cycle <= cycle + 1;

    prap_axi_rules #(15) aw (
        .clk(aclk), .resetn(aresetn), .valid(s_axi_awvalid ^ tamper[0]), .ready(s_axi_awready),
        .twist(twist[0]), .payload({s_axi_awprot, s_axi_awaddr}), .broken(broken[2:0])
    );
    prap_axi_rules #(36) w (
        .clk(aclk), .resetn(aresetn), .valid(s_axi_wvalid ^ tamper[1]), .ready(s_axi_wready),
        .twist(twist[1]), .payload({s_axi_wstrb, s_axi_wdata}), .broken(broken[5:3])
    );
    prap_axi_rules #(2) b (
        .clk(aclk), .resetn(aresetn), .valid(s_axi_bvalid ^ tamper[2]), .ready(s_axi_bready),
        .twist(twist[2]), .payload(s_axi_bresp), .broken(broken[8:6])
    );
    prap_axi_rules #(15) ar (
        .clk(aclk), .resetn(aresetn), .valid(s_axi_arvalid ^ tamper[3]), .ready(s_axi_arready),
        .twist(twist[3]), .payload({s_axi_arprot, s_axi_araddr}), .broken(broken[11:9])
    );
    prap_axi_rules #(34) r (
        .clk(aclk), .resetn(aresetn), .valid(s_axi_rvalid ^ tamper[4]), .ready(s_axi_rready),
        .twist(twist[4]), .payload({s_axi_rresp, s_axi_rdata}), .broken(broken[14:12])
    );
    prap_axi_rules #(73) s (
        .clk(aclk), .resetn(aresetn), .valid(s_axis_tvalid ^ tamper[5]), .ready(s_axis_tready),
        .twist(twist[5]), .payload({s_axis_tlast, s_axis_tkeep, s_axis_tdata}), .broken(broken[17:15])
    );
    prap_axi_rules #(74) m (
        .clk(aclk), .resetn(aresetn), .valid(m_axis_tvalid ^ tamper[6]), .ready(m_axis_tready),
        .twist(twist[6]), .payload({m_axis_tuser, m_axis_tlast, m_axis_tkeep, m_axis_tdata}), .broken(broken[20:18])
    );
endmodule
