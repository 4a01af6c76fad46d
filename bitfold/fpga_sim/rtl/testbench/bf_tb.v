// Self-checking test bench, for Icarus Verilog and Verilator: runs one layer on bf_top, compares
// every word of results with +golden=FILE, and every word of codes with +codes=FILE, and counts
// cycles from the first operand read to the last result.
module bf_tb #(
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
    parameter THRESHOLDS = 1,
    parameter OB         = 2,
    parameter COUNT      = 3,
    parameter OFFSET     = 0,
    parameter SEARCH     = 0,
    parameter TABLES     = 16,
    parameter TW         = 4,
    parameter CW         = 16,
    parameter AW         = 24,
    parameter WORDS      = 65536,  // of each memory of the test bench
    parameter LB         = DATAFLOW == 2 ? WB : AB,
    parameter TB         = DATAFLOW == 2 ? AB : WB
);
    localparam LW = ROWS * LANES * LB;
    localparam TOPW = COLS * LANES * TB;
    localparam LOADW = CW + 32 + 32 + 64;  // column, table, entry, value

    reg clk = 1'b0;
    reg rst = 1'b1;
    reg start = 1'b0;
    reg [LW-1:0] left_words [0:WORDS-1];
    reg [TOPW-1:0] top_words [0:WORDS-1];
    reg [COLS*ACC-1:0] golden_words [0:WORDS-1];
    reg [COLS*OB-1:0] code_words [0:WORDS-1];
    reg [LOADW-1:0] load_words [0:WORDS-1];
    reg [LW-1:0] left_data;
    reg [TOPW-1:0] top_data;
    reg load = 1'b0;
    reg [LOADW-1:0] load_word;
    wire left_read, top_read, out_valid, out_last, code_valid, ending;
    wire [AW-1:0] left_addr, top_addr;
    wire [COLS*ACC-1:0] out_acc;
    wire [COLS*OB-1:0] code;

    integer inner, inner_last, lefts, folds, tops, groups, depth, loads, check_codes;
    integer cycle, outs, codes, wrong, wrong_codes, n, dump, has_dump;
    reg counting, finished;
    reg [8*512-1:0] name;

    bf_top #(
        .DATAFLOW(DATAFLOW), .ROWS(ROWS), .COLS(COLS), .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC),
        .KIND(KIND), .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT), .DEPTH(DEPTH), .DW(DW),
        .THRESHOLDS(THRESHOLDS), .OB(OB), .COUNT(COUNT), .OFFSET(OFFSET),
        .SEARCH(SEARCH), .TABLES(TABLES), .TW(TW), .CW(CW), .AW(AW)
    ) dut (
        .clk(clk), .rst(rst), .start(start), .cfg_inner(inner[CW-1:0]),
        .cfg_inner_last(inner_last[CW-1:0]), .cfg_left(lefts[CW-1:0]), .cfg_folds(folds[CW-1:0]),
        .cfg_top(tops[CW-1:0]), .cfg_groups(groups[CW-1:0]), .cfg_depth(depth[CW-1:0]),
        .left_read(left_read), .left_addr(left_addr), .left_data(left_data), .top_read(top_read),
        .top_addr(top_addr), .top_data(top_data), .load(load),
        .load_col(load_word[128 +: CW]), .load_table(load_word[96 +: TW]),
        .load_entry(load_word[64 +: OB]), .load_value(load_word[0 +: ACC+1]),
        .ending(ending), .out_valid(out_valid), .out_last(out_last), .out_acc(out_acc),
        .code_valid(code_valid), .code(code)
    );
    wire unused = &{1'b0, ending};

    always #5 clk = !clk;

    // Operand memories: a word is there the cycle after its address.
    always @(posedge clk) begin
        if (left_read) left_data <= left_words[left_addr];
        if (top_read) top_data <= top_words[top_addr];
    end

    // Sampled at the end of every cycle.
    always @(posedge clk) begin
        if (counting || left_read || top_read) begin
            counting <= 1'b1;
            cycle <= cycle + 1;
        end
        if (out_valid) begin
            outs <= outs + 1;
            if (has_dump != 0) $fwrite(dump, "%h\n", out_acc);
            if (out_acc !== golden_words[outs]) begin
                wrong <= wrong + 1;
                if (wrong < 5)
                    $display("result %0d: got %h, want %h", outs, out_acc, golden_words[outs]);
            end
            if (out_last) begin
                counting <= 1'b0;
                finished <= 1'b1;
                $display("cycles %0d", cycle + 1);
            end
        end
        if (code_valid && check_codes != 0) begin
            codes <= codes + 1;
            if (code !== code_words[codes]) begin
                wrong_codes <= wrong_codes + 1;
                if (wrong_codes < 5)
                    $display("code %0d: got %h, want %h", codes, code, code_words[codes]);
            end
        end
    end

    initial begin
        {cycle, outs, codes, wrong, wrong_codes} = 0;
        {loads, check_codes, has_dump} = 0;
        {counting, finished} = 0;
        if (!$value$plusargs("inner=%d", inner) || !$value$plusargs("inner_last=%d", inner_last)
            || !$value$plusargs("lefts=%d", lefts) || !$value$plusargs("folds=%d", folds)
            || !$value$plusargs("tops=%d", tops) || !$value$plusargs("groups=%d", groups)
            || !$value$plusargs("depth=%d", depth)) begin
            $display("FAIL: a +count is missing");
            $finish;
        end
        if ($value$plusargs("left=%s", name)) $readmemh(name, left_words);
        if ($value$plusargs("top=%s", name)) $readmemh(name, top_words);
        if ($value$plusargs("golden=%s", name)) $readmemh(name, golden_words);
        if ($value$plusargs("codes=%s", name)) begin
            $readmemh(name, code_words);
            check_codes = 1;
        end
        if ($value$plusargs("tables=%s", name)) $readmemh(name, load_words);
        if (!$value$plusargs("loads=%d", loads)) loads = 0;
        if ($value$plusargs("dump=%s", name)) begin
            dump = $fopen(name, "w");
            has_dump = 1;
        end
        repeat (2 * (ROWS + COLS) + 4) @(posedge clk);
        #1 rst = 1'b0;
        for (n = 0; n < loads; n = n + 1) begin
            load_word = load_words[n];
            load = 1'b1;
            @(posedge clk);
            #1 load = 1'b0;
        end
        start = 1'b1;
        @(posedge clk);
        #1 start = 1'b0;
        wait (finished);
        repeat (OB + 4) @(posedge clk);
        #1;
        $display("results %0d words, %0d wrong", outs, wrong);
        if (check_codes != 0) $display("codes %0d words, %0d wrong", codes, wrong_codes);
        if (wrong == 0 && wrong_codes == 0 && (check_codes == 0 || codes == outs))
            $display("PASS");
        else $display("FAIL");
        if (has_dump != 0) $fclose(dump);
        $finish;
    end
endmodule
