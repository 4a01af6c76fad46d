// The array of one dataflow between its operand memories and its results, with the threshold units
// behind the output register. DATAFLOW 0: output-, 1: weight-, 2: input-stationary.
// A run begins with start, which may come with ending: in the cycle in which the last operands of
// the run before are read. cfg_* change with the cycle after start. What cfg_* count:          OS                  WS and IS
//   cfg_inner, cfg_inner_last                         steps of a tile     positions of a chunk
//   cfg_left                                          row folds           chunks
//   cfg_folds                                         1                   folds of the depth
//   cfg_top                                           column folds        folds of the top operand
// Left is the activation in OS and WS, the weight in IS; top is the other one.
module bf_top #(
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
    parameter LB         = DATAFLOW == 2 ? WB : AB,
    parameter TB         = DATAFLOW == 2 ? AB : WB
) (
    input  wire                     clk,
    input  wire                     rst,
    input  wire                     start,
    input  wire [           CW-1:0] cfg_inner,
    input  wire [           CW-1:0] cfg_inner_last,
    input  wire [           CW-1:0] cfg_left,
    input  wire [           CW-1:0] cfg_folds,
    input  wire [           CW-1:0] cfg_top,
    input  wire [           CW-1:0] cfg_groups,
    input  wire [           CW-1:0] cfg_depth,
    output wire                     left_read,
    output wire [           AW-1:0] left_addr,
    input  wire [ROWS*LANES*LB-1:0] left_data,
    output wire                     top_read,
    output wire [           AW-1:0] top_addr,
    input  wire [COLS*LANES*TB-1:0] top_data,
    input  wire                     load,
    input  wire [           CW-1:0] load_col,
    input  wire [           TW-1:0] load_table,
    input  wire [           OB-1:0] load_entry,
    input  wire [            ACC:0] load_value,
    output wire                     ending,
    output wire                     out_valid,
    output wire                     out_last,
    output wire [     COLS*ACC-1:0] out_acc,
    output wire                     code_valid,
    output wire [      COLS*OB-1:0] code
);
    wire [TW-1:0] out_table;

    generate
        if (DATAFLOW == 0) begin : g_os
            bf_core_os #(
                .ROWS(ROWS), .COLS(COLS), .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC),
                .KIND(KIND), .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT), .TW(TW), .CW(CW), .AW(AW)
            ) core (
                .clk(clk), .rst(rst), .start(start), .cfg_steps(cfg_inner), .cfg_left(cfg_left),
                .cfg_top(cfg_top), .cfg_groups(cfg_groups), .cfg_depth(cfg_depth),
                .left_read(left_read), .left_addr(left_addr), .left_data(left_data),
                .top_read(top_read), .top_addr(top_addr), .top_data(top_data),
                .ending(ending), .out_valid(out_valid), .out_last(out_last),
                .out_table(out_table), .out_acc(out_acc)
            );
            localparam [DW-1:0] UNUSED_DEPTH = DEPTH[DW-1:0];
            wire unused = &{1'b0, cfg_inner_last, cfg_folds, UNUSED_DEPTH};
        end else begin : g_stationary
            bf_core_ws #(
                .ROWS(ROWS), .COLS(COLS), .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC),
                .KIND(KIND), .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT),
                .ROLE(DATAFLOW == 2 ? 1 : 0), .DEPTH(DEPTH), .DW(DW), .TW(TW), .CW(CW),
                .AW(AW)
            ) core (
                .clk(clk), .rst(rst), .start(start), .cfg_stream(cfg_inner),
                .cfg_stream_last(cfg_inner_last), .cfg_chunks(cfg_left), .cfg_folds(cfg_folds),
                .cfg_top(cfg_top), .cfg_groups(cfg_groups), .cfg_depth(cfg_depth),
                .left_read(left_read), .left_addr(left_addr), .left_data(left_data),
                .top_read(top_read), .top_addr(top_addr), .top_data(top_data),
                .ending(ending), .out_valid(out_valid), .out_last(out_last),
                .out_table(out_table), .out_acc(out_acc)
            );
        end

        if (THRESHOLDS != 0) begin : g_thresholds
            bf_requantize #(
                .COLS(COLS), .ACC(ACC), .OB(OB), .COUNT(COUNT), .OFFSET(OFFSET), .SEARCH(SEARCH),
                .DEPTH(TABLES), .TW(TW), .SHARED(DATAFLOW == 2 ? 1 : 0), .CW(CW)
            ) requantize (
                .clk(clk), .rst(rst), .load(load), .load_col(load_col), .load_table(load_table),
                .load_entry(load_entry), .load_value(load_value), .in_valid(out_valid),
                .table_index(out_table), .acc(out_acc), .code_valid(code_valid),
                .code(code)
            );
        end else begin : g_raw
            assign code_valid = 1'b0;
            assign code = {COLS * OB{1'b0}};
            localparam [TW-1:0] UNUSED_TABLES = TABLES[TW-1:0] ^ SEARCH[TW-1:0];
            localparam [OB-1:0] UNUSED_COUNT = COUNT[OB-1:0] ^ OFFSET[OB-1:0];
            wire unused_raw = &{1'b0, out_table, load, load_col, load_table, load_entry, load_value,
                                UNUSED_TABLES, UNUSED_COUNT};
        end
    endgenerate
endmodule
