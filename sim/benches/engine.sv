// The engine with a recorder at its ports.
//
// Whatever crosses a port that is compared (a handshake of a stream, a word at a trace port) is
// written to a file, in little-endian 64-bit words (one each, or as many as a wide payload needs), in
// the cycle in which it crosses. Python drives the ports and sleeps while the engine runs; it reads the
// files when the engine is done.
//
// With +stamps every word recorded leaves another in cycles.bin: the kind of record (in the order in
// which they pass) in the top byte, and the cycles since the start.
//
// With PRAP_WAVES the bench can write a waveform (VCD), which begins when Python says so.
//
// With PRAP_OPEN the crossbar port is a port of this module, otherwise the engine has crossbars of
// its own and shows the same traffic at trace ports. PRAP_TOP is the engine's module.

module prap_bench #(
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
    input  logic                rst,
    input  logic                start,
    output logic                busy,
    input  logic                i_load__valid,
    output logic                i_load__ready,
    input  logic [LOAD-1:0]     i_load__payload,
    input  logic                i_cells__valid,
    output logic                i_cells__ready,
    input  logic [CELLS-1:0]    i_cells__payload,
    input  logic                i_acts__valid,
    output logic                i_acts__ready,
    input  logic [ACTS-1:0]     i_acts__payload,
    output logic                o__valid,
    input  logic                o__ready,
    output logic [OUT-1:0]      o__payload,
`ifdef PRAP_OPEN
    output logic                request_valid,
    input  logic                request_ready,
    output logic [REQUEST-1:0]  request_payload,
    input  logic                response_valid,
    output logic                response_ready,
    input  logic [RESPONSE-1:0] response_payload,
    output logic                program_valid,
    input  logic                program_ready,
    output logic [CELLS-1:0]    program_payload,
`endif
    output logic [39:0]         counters__cycles,
    output logic [39:0]         counters__requests,
    output logic [39:0]         counters__ous,
    output logic [39:0]         counters__gathered,
    output logic [39:0]         counters__index_reads,
    output logic [39:0]         counters__merged,
    output logic [39:0]         counters__outputs,
    output logic [39:0]         counters__stall_gather,
    output logic [39:0]         counters__stall_slots,
    output logic [39:0]         counters__stall_port,
    output logic [39:0]         counters__conversions,
    output logic [39:0]         counters__wordline_drives,
    output logic [39:0]         counters__cells_read,
    output logic [39:0]         counters__index_bits,
    output logic [39:0]         counters__psum_updates,
    output logic [39:0]         counters__merge_shifts,
    output logic [39:0]         counters__accumulator_updates,
    output logic [39:0]         counters__activation_writes,
    output logic [39:0]         counters__operand_reads,
    // The recorder: begin new files; write out what is buffered; cycles since the simulation began,
    // of the last start that was accepted, and of the last output that was accepted.
    input  logic                record_new,
    input  logic                record_flush,
`ifdef PRAP_WAVES
    // Begin the waveform that +wave names, of everything, with the edge that sees this.
    input  logic                wave_begin,
`endif
    output logic [63:0]         cycle,
    output logic [63:0]         start_cycle,
    output logic [63:0]         output_cycle
);

    logic [PSUMS-1:0]    trace_psum_valid;
    logic [PSUMS*PSUM-1:0] trace_psum;
    logic                trace_acc_valid;
    logic [ACC-1:0]      trace_acc;
    logic                request_taken;
    logic [REQUEST-1:0]  request_word;
    logic                response_taken;
    logic [RESPONSE-1:0] response_word;
    logic [5:0]          fault;  // left open: what does not come behind one is missed

    `PRAP_TOP dut (
        .clk(clk),
        .rst(rst),
        .start(start),
        .busy(busy),
        .fault(fault),
        .i_load__valid(i_load__valid),
        .i_load__ready(i_load__ready),
        .i_load__payload(i_load__payload),
        .i_cells__valid(i_cells__valid),
        .i_cells__ready(i_cells__ready),
        .i_cells__payload(i_cells__payload),
        .i_acts__valid(i_acts__valid),
        .i_acts__ready(i_acts__ready),
        .i_acts__payload(i_acts__payload),
        .o__valid(o__valid),
        .o__ready(o__ready),
        .o__payload(o__payload),
`ifdef PRAP_OPEN
        .crossbar__request__valid(request_valid),
        .crossbar__request__ready(request_ready),
        .crossbar__request__payload(request_payload),
        .crossbar__response__valid(response_valid),
        .crossbar__response__ready(response_ready),
        .crossbar__response__payload(response_payload),
        .crossbar__program__valid(program_valid),
        .crossbar__program__ready(program_ready),
        .crossbar__program__payload(program_payload),
`else
        .trace_request__valid(request_taken),
        .trace_request__payload(request_word),
        .trace_codes__valid(response_taken),
        .trace_codes__payload(response_word),
`endif
        .trace_psum__valid(trace_psum_valid),
        .trace_psum__payload(trace_psum),
        .trace_acc__valid(trace_acc_valid),
        .trace_acc__payload(trace_acc),
        .counters__cycles(counters__cycles),
        .counters__requests(counters__requests),
        .counters__ous(counters__ous),
        .counters__gathered(counters__gathered),
        .counters__index_reads(counters__index_reads),
        .counters__merged(counters__merged),
        .counters__outputs(counters__outputs),
        .counters__stall_gather(counters__stall_gather),
        .counters__stall_slots(counters__stall_slots),
        .counters__stall_port(counters__stall_port),
        .counters__conversions(counters__conversions),
        .counters__wordline_drives(counters__wordline_drives),
        .counters__cells_read(counters__cells_read),
        .counters__index_bits(counters__index_bits),
        .counters__psum_updates(counters__psum_updates),
        .counters__merge_shifts(counters__merge_shifts),
        .counters__accumulator_updates(counters__accumulator_updates),
        .counters__activation_writes(counters__activation_writes),
        .counters__operand_reads(counters__operand_reads)
    );

`ifdef PRAP_OPEN
    assign request_taken = request_valid && request_ready;
    assign request_word = request_payload;
    assign response_taken = response_valid && response_ready;
    assign response_word = response_payload;
`endif

    string folder;
    int requests_file;
    int codes_file;
    int psums_file;
    int accs_file;
    int outputs_file;
    int cycles_file;
    logic stamps;

    initial begin
        stamps = $test$plusargs("stamps") != 0;
        if ($value$plusargs("record=%s", folder) == 0) folder = ".";
        requests_file = $fopen({folder, "/requests.bin"}, "wb");
        codes_file = $fopen({folder, "/codes.bin"}, "wb");
        psums_file = $fopen({folder, "/partial_sums.bin"}, "wb");
        accs_file = $fopen({folder, "/accumulators.bin"}, "wb");
        outputs_file = $fopen({folder, "/outputs.bin"}, "wb");
        if (stamps) cycles_file = $fopen({folder, "/cycles.bin"}, "wb");
        cycle = 0;
        start_cycle = 0;
        output_cycle = 0;
    end

    always @(posedge clk) begin
        cycle <= cycle + 1;
        if (start && !busy) start_cycle <= cycle;
        if (request_taken)
            for (int w = 0; w < REQUEST; w += 64)
                $fwrite(requests_file, "%u", 64'(request_word >> w));
        if (response_taken)
            for (int w = 0; w < RESPONSE; w += 64)
                $fwrite(codes_file, "%u", 64'(response_word >> w));
        for (int i = 0; i < PSUMS; i++)
            if (trace_psum_valid[i]) $fwrite(psums_file, "%u", 64'(trace_psum[i*PSUM+:PSUM]));
        if (trace_acc_valid) $fwrite(accs_file, "%u", 64'(trace_acc));
        if (stamps) begin
            if (request_taken) $fwrite(cycles_file, "%u", {8'd0, 56'(cycle - start_cycle)});
            if (response_taken) $fwrite(cycles_file, "%u", {8'd1, 56'(cycle - start_cycle)});
            for (int i = 0; i < PSUMS; i++)
                if (trace_psum_valid[i])
                    $fwrite(cycles_file, "%u", {8'd2, 56'(cycle - start_cycle)});
            if (trace_acc_valid) $fwrite(cycles_file, "%u", {8'd3, 56'(cycle - start_cycle)});
            if (o__valid && o__ready)
                $fwrite(cycles_file, "%u", {8'd4, 56'(cycle - start_cycle)});
        end
        if (o__valid && o__ready) begin
            $fwrite(outputs_file, "%u", 64'(o__payload));
            output_cycle <= cycle;
        end
        if (record_new) begin
            $fclose(requests_file);
            $fclose(codes_file);
            $fclose(psums_file);
            $fclose(accs_file);
            $fclose(outputs_file);
            requests_file <= $fopen({folder, "/requests.bin"}, "wb");
            codes_file <= $fopen({folder, "/codes.bin"}, "wb");
            psums_file <= $fopen({folder, "/partial_sums.bin"}, "wb");
            accs_file <= $fopen({folder, "/accumulators.bin"}, "wb");
            outputs_file <= $fopen({folder, "/outputs.bin"}, "wb");
            if (stamps) begin
                $fclose(cycles_file);
                cycles_file <= $fopen({folder, "/cycles.bin"}, "wb");
            end
        end
        if (record_flush) begin
            $fflush(requests_file);
            $fflush(codes_file);
            $fflush(psums_file);
            $fflush(accs_file);
            $fflush(outputs_file);
            if (stamps) $fflush(cycles_file);
        end
    end

`ifdef PRAP_WAVES
    // 0 in the cycle in which a start is accepted, 1 in the one after it.
    logic [31:0] run_cycle;
    assign run_cycle = 32'(cycle - start_cycle);

    string wave_file;
    initial if ($value$plusargs("wave=%s", wave_file) == 0) wave_file = "waves.vcd";
    always @(posedge clk)
        if (wave_begin) begin
            $dumpfile(wave_file);
            $dumpvars(0, prap_bench);
        end
`endif

endmodule
