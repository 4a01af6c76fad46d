// Test bench of a whole layer with its memory system: bf_top between a loader, a writer and a
// behavioural DRAM. While block b computes, the port loads what block b + 1 lacks and then stores
// what block b - 1 left; the next block begins when the last operand of this one has been read and
// the port is done. Every word of results is compared with +golden=FILE; cycles are counted from
// the first load to the end of the last store.
module bf_system_tb #(
    parameter DATAFLOW   = 0,
    parameter ROWS       = 8,
    parameter COLS       = 8,
    parameter WB         = 2,
    parameter AB         = 2,
    parameter LANES      = 1,
    parameter ACC        = 16,
    parameter KIND       = 2,
    parameter SHADOW     = 0,
    parameter W_FMT      = 1,
    parameter A_FMT      = 0,
    parameter DEPTH      = 1024,
    parameter DW         = 10,
    parameter CW         = 16,
    parameter AW         = 24,
    parameter WORDS      = 65536,  // of each memory of operands and results
    parameter LB         = DATAFLOW == 2 ? WB : AB,
    parameter TB         = DATAFLOW == 2 ? AB : WB
);
    localparam LW = ROWS * LANES * LB;
    localparam TOPW = COLS * LANES * TB;
    localparam BLOCKW = 5 * 32;  // first row fold, row folds, first column fold, column folds, words
    localparam RUNW = 9 * 32;    // block, six counts, two bases

    reg clk = 1'b0;
    reg rst = 1'b1;
    reg go = 1'b0;
    reg [LW-1:0] left_words [0:WORDS-1];
    reg [TOPW-1:0] top_words [0:WORDS-1];
    reg [COLS*ACC-1:0] golden_words [0:WORDS-1];
    reg [BLOCKW-1:0] block_list [0:WORDS-1];
    reg [RUNW-1:0] run_list [0:WORDS-1];
    reg [31:0] layer_words [0:31];  // the layer and the port, in the order of the loader's inputs
    reg [LW-1:0] left_data;
    reg [TOPW-1:0] top_data;
    wire left_read, top_read, out_valid, out_last, ending, code_valid, code;
    wire [AW-1:0] left_addr, top_addr;
    wire [COLS*ACC-1:0] out_acc;

    integer blocks, runs, depth;
    integer run;      // the run whose operands are read
    integer block;    // its block; -1 before the first
    integer loading;  // the next block to load, to store
    integer storing;
    integer cycle, outs, wrong, busy, missing;
    reg computing, counting, finished, pending_load, pending_store;
    reg [8*512-1:0] name;

    wire [RUNW-1:0] now = run_list[run];
    wire [BLOCKW-1:0] load_entry = block_list[loading];
    wire [BLOCKW-1:0] store_entry = block_list[storing];
    wire [63:0] load_bursts, store_bursts;
    wire dram_idle, dram_last, row_missing;
    wire [63:0] bytes_read, bytes_written;

    // The slot of one block: the array and the port at once.
    wire run_ends = computing && ending;
    wire block_ends = run_ends && (run + 1 == runs || run_list[run+1][RUNW-1 -: 32] != block);
    wire array_done = !computing || block_ends;
    wire port_done = !pending_load && !pending_store && (dram_idle || dram_last);
    wire advance = counting && block < blocks && array_done && port_done;
    wire start = (advance && block + 1 < blocks) || (run_ends && !block_ends);

    // The port: a load first, then a store as soon as the results are there.
    wire wants_load = (advance ? block + 2 < blocks : pending_load);
    wire wants_store = (advance ? block >= 0 : pending_store);
    wire results_there = outs + {31'd0, out_valid} >= store_entry[31:0];
    wire port_free = dram_idle || dram_last;
    wire opening = go && blocks > 0;
    wire load_take = opening || (port_free && wants_load);
    wire store_take = port_free && !wants_load && wants_store && results_there;
    wire request_load = load_take && load_bursts != 0;
    wire request_store = store_take && store_bursts != 0;

    bf_loader loader (
        .clk(clk), .rst(rst), .cfg_pixels(layer_words[0]), .cfg_width(layer_words[1]),
        .cfg_filters(layer_words[2]), .cfg_group_filters(layer_words[3]),
        .cfg_height(layer_words[4]), .cfg_kernel(layer_words[5]), .cfg_stride(layer_words[6]),
        .cfg_pad(layer_words[7]), .cfg_constants(layer_words[8]), .cfg_inputs(layer_words[9]),
        .cfg_others(layer_words[10]), .cfg_writes(layer_words[11]),
        .cfg_fold_pixels(layer_words[12]), .cfg_fold_filters(layer_words[13]),
        .cfg_group_folds(layer_words[14]), .cfg_burst(layer_words[15]),
        .load_block(load_entry[BLOCKW-1:32]), .store_block(store_entry[BLOCKW-1:32]),
        .load_take(load_take), .load_bursts(load_bursts), .store_bursts(store_bursts),
        .missing(row_missing)
    );

    bf_dram dram (
        .clk(clk), .rst(rst), .cfg_burst(layer_words[15]), .cfg_width(layer_words[16]),
        .cfg_latency(layer_words[17]), .cfg_rate_num(layer_words[18]),
        .cfg_rate_den(layer_words[19]), .request(request_load || request_store),
        .write(request_store), .bursts(request_store ? store_bursts : load_bursts),
        .idle(dram_idle), .last(dram_last), .bytes_read(bytes_read),
        .bytes_written(bytes_written)
    );

    bf_top #(
        .DATAFLOW(DATAFLOW), .ROWS(ROWS), .COLS(COLS), .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC),
        .KIND(KIND), .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT), .DEPTH(DEPTH), .DW(DW),
        .THRESHOLDS(0), .OB(1), .COUNT(1), .OFFSET(0), .SEARCH(0), .TABLES(1), .TW(1), .CW(CW),
        .AW(AW)
    ) dut (
        .clk(clk), .rst(rst), .start(start), .cfg_inner(now[224 +: CW]),
        .cfg_inner_last(now[192 +: CW]), .cfg_left(now[160 +: CW]), .cfg_folds(now[128 +: CW]),
        .cfg_top(now[96 +: CW]), .cfg_groups(now[64 +: CW]), .cfg_depth(depth[CW-1:0]),
        .left_read(left_read), .left_addr(left_addr), .left_data(left_data), .top_read(top_read),
        .top_addr(top_addr), .top_data(top_data), .load(1'b0), .load_col({CW{1'b0}}),
        .load_table(1'b0), .load_entry(1'b0), .load_value({ACC + 1{1'b0}}), .ending(ending),
        .out_valid(out_valid), .out_last(out_last), .out_acc(out_acc), .code_valid(code_valid),
        .code(code)
    );
    wire unused = &{1'b0, out_last, code_valid, code};

    always #5 clk = !clk;

    // Operand memories: a word is there the cycle after its address.
    always @(posedge clk) begin
        if (left_read) left_data <= left_words[now[32 +: AW] + left_addr];
        if (top_read) top_data <= top_words[now[0 +: AW] + top_addr];
    end

    always @(posedge clk) begin
        if (!rst) begin
            if (go) counting <= 1'b1;
            if (counting) cycle <= cycle + 1;
            if (counting && !dram_idle) busy <= busy + 1;
            pending_load <= wants_load && !load_take;
            pending_store <= wants_store && !store_take;
            if (load_take) loading <= loading + 1;
            if (load_take && row_missing) missing <= missing + 1;
            if (store_take) storing <= storing + 1;
            if (advance) block <= block + 1;
            if (start && block >= 0) run <= run + 1;
            if (start) computing <= 1'b1;
            else if (block_ends) computing <= 1'b0;
            if (counting && block == blocks && port_done) begin
                counting <= 1'b0;
                finished <= 1'b1;
            end
        end
        if (out_valid) begin
            outs <= outs + 1;
            if (out_acc !== golden_words[outs]) wrong <= wrong + 1;
        end
    end

    initial begin
        {cycle, outs, wrong, busy, missing, run, loading, storing} = 0;
        {computing, counting, finished, pending_load, pending_store} = 0;
        block = -1;
        if (!$value$plusargs("blocks=%d", blocks) || !$value$plusargs("runs=%d", runs)
            || !$value$plusargs("depth=%d", depth)) begin
            $display("FAIL: a +count is missing");
            $finish;
        end
        if ($value$plusargs("left=%s", name)) $readmemh(name, left_words);
        if ($value$plusargs("top=%s", name)) $readmemh(name, top_words);
        if ($value$plusargs("golden=%s", name)) $readmemh(name, golden_words);
        if ($value$plusargs("block_list=%s", name)) $readmemh(name, block_list);
        if ($value$plusargs("run_list=%s", name)) $readmemh(name, run_list);
        if ($value$plusargs("layer=%s", name)) $readmemh(name, layer_words);
        repeat (2 * (ROWS + COLS) + 4) @(posedge clk);
        #1 rst = 1'b0;
        @(posedge clk);
        #1 go = 1'b1;
        @(posedge clk);
        #1 go = 1'b0;
        wait (finished);
        #1;
        $display("cycles %0d", cycle);
        $display("port %0d busy, %0d bytes read, %0d written", busy, bytes_read, bytes_written);
        $display("results %0d words, %0d wrong", outs, wrong);
        $display("rows %0d missing", missing);
        $finish;
    end
endmodule
