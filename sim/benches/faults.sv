// An engine or accelerator with emulated crossbars, loaded and run again and again from memories of
// this bench, for the fault campaign: a bench in Python that touches no signal in most cycles.
//
// `command` (one cycle): 1 sends the program words and rows of cells, 2 sends the activations and
// starts a run. `finished` rises when that is done: for a run QUIET cycles after the engine has ended
// or stood by a fault, in which nothing more may come, or when there are twice the outputs that there
// should be; or, with `hung`, when nothing has happened for `patience` cycles. What is told of a run:
// its first fault and its cycle, the outputs that left, how many of them were wrong or too many, and
// how many left when there was a fault.

module prap_bench #(
    parameter int LOAD = 1,
    parameter int CELLS = 1,
    parameter int OUT = 1,
    parameter int DEPTH = 8192,
    parameter int QUIET = 40
) (
    input  logic        clk,
    input  logic        rst,
    input  logic [1:0]  command,
    input  logic [31:0] count_words,
    input  logic [31:0] count_rows,
    input  logic [31:0] count_acts,
    input  logic [31:0] count_expected,
    input  logic [31:0] patience,
    output logic        finished,
    output logic        hung,
    output logic [1:0]  kind,
    output logic [3:0]  space,
    output logic [31:0] cycles,
    output logic [31:0] outputs,
    output logic [31:0] wrong,
    output logic [31:0] late
);
    logic [LOAD-1:0]  words  [0:DEPTH-1];
    logic [CELLS-1:0] rows   [0:DEPTH-1];
    logic [7:0]       acts   [0:DEPTH-1];
    logic [OUT-1:0]   expected[0:DEPTH-1];

    typedef enum logic [2:0] {IDLE, WORDS, ROWS, BYTES, START, RUN} state_t;
    state_t state = IDLE;
    logic [31:0] at = 0;
    logic [31:0] still = 0;
    logic [31:0] quiet = 0;

    logic             busy, load_ready, cells_ready, acts_ready, out_valid;
    logic [OUT-1:0]   out;
    logic [5:0]       fault;
    logic             moved;
    assign moved = (state == WORDS && load_ready) || (state == ROWS && cells_ready)
        || (state == BYTES && acts_ready) || state == START || (state == RUN && out_valid)
        || (state == RUN && quiet != 0);

    initial begin
        finished = 0;
        hung = 0;
        kind = 0;
        space = 0;
        cycles = 0;
        outputs = 0;
        wrong = 0;
        late = 0;
    end

    always_ff @(posedge clk) begin
        still <= moved ? 0 : still + 1;
        if (state == IDLE) begin
            still <= 0;
            if (command != 0) begin
                finished <= 0;
                hung <= 0;
                at <= 0;
                state <= command == 1 ? WORDS : BYTES;
                quiet <= 0;
                kind <= 0;
                space <= 0;
                cycles <= 0;
                outputs <= 0;
                wrong <= 0;
                late <= 0;
            end
        end
        if (state == WORDS && load_ready) begin
            at <= at + 1;
            if (at + 1 == count_words) begin
                at <= 0;
                state <= ROWS;
            end
        end
        if (state == ROWS && cells_ready) begin
            at <= at + 1;
            if (at + 1 == count_rows) begin
                state <= IDLE;
                finished <= 1;
            end
        end
        if (state == BYTES && acts_ready) begin
            at <= at + 1;
            if (at + 1 == count_acts) state <= START;
        end
        if (state == START) state <= RUN;
        if (state == RUN) begin
            if (kind == 0) cycles <= cycles + 1;
            if (out_valid) begin
                outputs <= outputs + 1;
                if (outputs >= count_expected || out != expected[outputs[$clog2(DEPTH)-1:0]])
                    wrong <= wrong + 1;
                if (fault[1:0] != 0) late <= late + 1;
            end
            if (!busy || fault[1:0] != 0) quiet <= quiet + 1;
            if (quiet == QUIET || outputs == 2 * count_expected) begin
                state <= IDLE;
                finished <= 1;
            end
        end
        if (state != IDLE && kind == 0 && fault[1:0] != 0) begin
            kind <= fault[1:0];
            space <= fault[5:2];
        end
        if (state != IDLE && still == patience) begin
            state <= IDLE;
            finished <= 1;
            hung <= 1;
        end
        if (rst) begin
            state <= IDLE;
            finished <= 0;
        end
    end

    // Nobody reads the counters here, nor what an accelerator has beside.
    /* verilator lint_off PINMISSING */
    localparam int INDEX = $clog2(DEPTH);
    `PRAP_TOP dut (
        .clk(clk),
        .rst(rst),
        .start(state == START),
        .busy(busy),
        .fault(fault),
        .i_load__valid(state == WORDS),
        .i_load__ready(load_ready),
        .i_load__payload(words[at[INDEX-1:0]]),
        .i_cells__valid(state == ROWS),
        .i_cells__ready(cells_ready),
        .i_cells__payload(rows[at[INDEX-1:0]]),
        .i_acts__valid(state == BYTES),
        .i_acts__ready(acts_ready),
        .i_acts__payload({at + 1 == count_acts, acts[at[INDEX-1:0]]}),
        .o__valid(out_valid),
        .o__ready(1'b1),
        .o__payload(out)
    );
    /* verilator lint_on PINMISSING */
endmodule
