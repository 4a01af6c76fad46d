// COLS threshold units. Entries are loaded one at a time: load_col names the column, except
// where SHARED tables (input-stationary: every row of results is one filter) go to all columns.
module bf_requantize #(
    parameter COLS   = 8,
    parameter ACC    = 16,
    parameter OB     = 2,
    parameter COUNT  = 3,
    parameter OFFSET = 0,
    parameter SEARCH = 0,
    parameter DEPTH  = 16,
    parameter TW     = 4,
    parameter SHARED = 0,
    parameter CW     = 16
) (
    input  wire                clk,
    input  wire                rst,
    input  wire                load,
    input  wire [      CW-1:0] load_col,
    input  wire [      TW-1:0] load_table,
    input  wire [      OB-1:0] load_entry,
    input  wire [       ACC:0] load_value,
    input  wire                in_valid,
    input  wire [      TW-1:0] table_index,
    input  wire [COLS*ACC-1:0] acc,
    output wire                code_valid,
    output wire [ COLS*OB-1:0] code
);
    localparam LATENCY = SEARCH != 0 ? OB : 1;
    bf_delay #(.WIDTH(1), .DELAY(LATENCY)) line (
        .clk(clk), .in(in_valid && !rst), .out(code_valid)
    );
    genvar c;
    generate
        for (c = 0; c < COLS; c = c + 1) begin : g_column
            localparam [CW-1:0] COLUMN = c;
            bf_threshold #(
                .ACC(ACC), .OB(OB), .COUNT(COUNT), .OFFSET(OFFSET), .SEARCH(SEARCH),
                .DEPTH(DEPTH), .TW(TW)
            ) unit (
                .clk(clk),
                .load(load && (SHARED != 0 || load_col == COLUMN)),
                .load_table(load_table), .load_entry(load_entry), .load_value(load_value),
                .table_index(table_index),
                .acc(acc[c*ACC +: ACC]), .code(code[c*OB +: OB])
            );
        end
    endgenerate
endmodule
