// The engine with registers at its inputs, for the bulk tier.
//
// A simulation made by Verilator computes what depends on a top's inputs again at every evaluation,
// and there are two in a cycle. Here inputs end in registers: one slice to each loading stream, so
// that the engine sees its host a cycle later, on which no value and no count depends. Outputs are
// always taken.
//
// The reset is tied off, since it would be computed with every register in every cycle: registers
// begin as the Verilog initialises them, which is what a reset makes of them. Memories have no
// initial contents and are filled at random.
//
// PRAP_TOP is the engine's module, with emulated crossbars and trace ports. With PRAP_DONE it is an
// accelerator, which has an output more. With PRAP_RESULTS it is one of several engines: their trace
// ports are many, and accumulators and outputs alone are recorded.

module prap_bulk #(
    parameter int LOAD = 1,
    parameter int CELLS = 1,
    parameter int ACTS = 1,
    parameter int OUT = 1,
    parameter int REQUEST = 1,
    parameter int RESPONSE = 1,
    parameter int PSUM = 1,
    parameter int PSUMS = 1,
    parameter int ACC = 1
) (
    input  logic                clk,
    input  logic                start,
    // Program words, rows of cells, activation bytes.
    input  logic                load_valid,
    output logic                load_ready,
    input  logic [LOAD-1:0]     load,
    input  logic                cells_valid,
    output logic                cells_ready,
    input  logic [CELLS-1:0]    cells,
    input  logic                acts_valid,
    output logic                acts_ready,
    input  logic [ACTS-1:0]     acts,
    // Whether a start is accepted in this cycle; whether a run goes on, from the call for it.
    output logic                started,
    output logic                busy,
`ifdef PRAP_DONE
    output logic                done,
`endif
    // What is recorded.
    output logic                request_valid,
    output logic [REQUEST-1:0]  request,
    output logic                codes_valid,
    output logic [RESPONSE-1:0] codes,
    output logic [PSUMS-1:0]      psum_valid,
    output logic [PSUMS*PSUM-1:0] psum,
    output logic                acc_valid,
    output logic [ACC-1:0]      acc,
    output logic                out_valid,
    output logic [OUT-1:0]      out,
    output logic [39:0]         counter_cycles,
    output logic [39:0]         counter_requests,
    output logic [39:0]         counter_ous,
    output logic [39:0]         counter_gathered,
    output logic [39:0]         counter_index_reads,
    output logic [39:0]         counter_merged,
    output logic [39:0]         counter_outputs,
    output logic [39:0]         counter_stall_gather,
    output logic [39:0]         counter_stall_slots,
    output logic [39:0]         counter_stall_port,
    output logic [39:0]         counter_conversions,
    output logic [39:0]         counter_wordline_drives,
    output logic [39:0]         counter_cells_read,
    output logic [39:0]         counter_index_bits,
    output logic [39:0]         counter_psum_updates,
    output logic [39:0]         counter_merge_shifts,
    output logic [39:0]         counter_accumulator_updates,
    output logic [39:0]         counter_activation_writes,
    output logic [39:0]         counter_operand_reads
);

    logic             begin_run = 0;
    logic             running;
    logic [5:0]       fault;  // left open: what does not come behind one is missed
    logic             load_held = 0;
    logic             load_taken;
    logic [LOAD-1:0]  load_word;
    logic             cells_held = 0;
    logic             cells_taken;
    logic [CELLS-1:0] cells_word;
    logic             acts_held = 0;
    logic             acts_taken;
    logic [ACTS-1:0]  acts_word;

    assign load_ready = !load_held || load_taken;
    assign cells_ready = !cells_held || cells_taken;
    assign acts_ready = !acts_held || acts_taken;
    assign started = begin_run && !running;
    assign busy = begin_run || running;

    always_ff @(posedge clk) begin
        begin_run <= start;
        if (load_ready) begin
            load_held <= load_valid;
            load_word <= load;
        end
        if (cells_ready) begin
            cells_held <= cells_valid;
            cells_word <= cells;
        end
        if (acts_ready) begin
            acts_held <= acts_valid;
            acts_word <= acts;
        end
    end

`ifdef PRAP_RESULTS
    // The engines' trace ports, as many as there are engines, are left open.
    /* verilator lint_off PINMISSING */
    assign request_valid = 0;
    assign request = 0;
    assign codes_valid = 0;
    assign codes = 0;
    assign psum_valid = 0;
    assign psum = 0;
`endif

    `PRAP_TOP dut (
        .clk(clk),
        .rst(1'b0),
        .start(begin_run),
        .busy(running),
        .fault(fault),
`ifdef PRAP_DONE
        .done(done),
`endif
        .i_load__valid(load_held),
        .i_load__ready(load_taken),
        .i_load__payload(load_word),
        .i_cells__valid(cells_held),
        .i_cells__ready(cells_taken),
        .i_cells__payload(cells_word),
        .i_acts__valid(acts_held),
        .i_acts__ready(acts_taken),
        .i_acts__payload(acts_word),
        .o__valid(out_valid),
        .o__ready(1'b1),
        .o__payload(out),
`ifndef PRAP_RESULTS
        .trace_request__valid(request_valid),
        .trace_request__payload(request),
        .trace_codes__valid(codes_valid),
        .trace_codes__payload(codes),
        .trace_psum__valid(psum_valid),
        .trace_psum__payload(psum),
`endif
        .trace_acc__valid(acc_valid),
        .trace_acc__payload(acc),
        .counters__cycles(counter_cycles),
        .counters__requests(counter_requests),
        .counters__ous(counter_ous),
        .counters__gathered(counter_gathered),
        .counters__index_reads(counter_index_reads),
        .counters__merged(counter_merged),
        .counters__outputs(counter_outputs),
        .counters__stall_gather(counter_stall_gather),
        .counters__stall_slots(counter_stall_slots),
        .counters__stall_port(counter_stall_port),
        .counters__conversions(counter_conversions),
        .counters__wordline_drives(counter_wordline_drives),
        .counters__cells_read(counter_cells_read),
        .counters__index_bits(counter_index_bits),
        .counters__psum_updates(counter_psum_updates),
        .counters__merge_shifts(counter_merge_shifts),
        .counters__accumulator_updates(counter_accumulator_updates),
        .counters__activation_writes(counter_activation_writes),
        .counters__operand_reads(counter_operand_reads)
    );
    /* verilator lint_on PINMISSING */

endmodule
