// Output-stationary array with its controller and skew registers, between operand memories
// (a word is read the cycle after its address) and the output register.
module bf_core_os #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter WB     = 2,
    parameter AB     = 2,
    parameter LANES  = 1,
    parameter ACC    = 16,
    parameter KIND   = 2,
    parameter SHADOW = 0,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter TW     = 4,
    parameter CW     = 16,
    parameter AW     = 24
) (
    input  wire                     clk,
    input  wire                     rst,
    input  wire                     start,
    input  wire [           CW-1:0] cfg_steps,
    input  wire [           CW-1:0] cfg_left,
    input  wire [           CW-1:0] cfg_top,
    input  wire [           CW-1:0] cfg_groups,
    input  wire [           CW-1:0] cfg_depth,
    output wire                     left_read,
    output wire [           AW-1:0] left_addr,
    input  wire [ROWS*LANES*AB-1:0] left_data,
    output wire                     top_read,
    output wire [           AW-1:0] top_addr,
    input  wire [COLS*LANES*WB-1:0] top_data,
    output wire                     ending,
    output wire                     out_valid,
    output wire                     out_last,
    output wire [           TW-1:0] out_table,
    output reg  [     COLS*ACC-1:0] out_acc
);
    localparam SERIAL = KIND == 3;
    localparam EA = SERIAL ? 1 : AB;  // operand bits that enter a PE
    localparam EW = SERIAL ? 1 : WB;
    localparam RW = LANES * EA + 5;
    wire issue, valid, first, last, twice, negate, shift;
    wire [3:0] plane_a, plane_w;
    wire [ROWS*LANES*EA-1:0] a_now, a_skewed;
    wire [COLS*LANES*EW-1:0] w_now, w_skewed;
    wire [ROWS*RW-1:0] row_in, row_out;
    wire [ROWS-1:0] valids, firsts, lasts, twices, negates;
    wire [COLS*ACC-1:0] drain, settled;

    bf_control_os #(
        .ROWS(ROWS), .COLS(COLS), .SHADOW(SHADOW), .PA(SERIAL ? AB : 1), .PW(SERIAL ? WB : 1),
        .W_FMT(W_FMT), .A_FMT(A_FMT), .TW(TW), .CW(CW), .AW(AW)
    ) control (
        .clk(clk), .rst(rst), .start(start), .cfg_steps(cfg_steps), .cfg_left(cfg_left),
        .cfg_top(cfg_top), .cfg_groups(cfg_groups), .issue(issue), .left_addr(left_addr),
        .top_addr(top_addr), .plane_a(plane_a), .plane_w(plane_w), .valid(valid), .first(first),
        .last(last), .twice(twice), .negate(negate), .shift(shift), .ending(ending), .out_valid(out_valid),
        .out_last(out_last), .out_fold(out_table)
    );
    assign left_read = issue;
    assign top_read = issue;

    generate
        if (SERIAL) begin : g_planes
            bf_select #(.PARTS(ROWS * LANES), .B(AB)) select_a (
                .in(left_data), .plane(plane_a), .out(a_now)
            );
            bf_select #(.PARTS(COLS * LANES), .B(WB)) select_w (
                .in(top_data), .plane(plane_w), .out(w_now)
            );
        end else begin : g_whole
            assign a_now = left_data;
            assign w_now = top_data;
            wire unused = &{1'b0, plane_a, plane_w};
        end
    endgenerate

    // What no PE reads is not delayed.
    wire [2:0] flags = {SERIAL && negate, SERIAL && twice, SHADOW != 0 && last};
    genvar r;
    generate
        for (r = 0; r < ROWS; r = r + 1) begin : g_row
            assign row_in[r*RW +: RW] = {
                flags, first, valid, a_now[r*LANES*EA +: LANES*EA]
            };
            assign {negates[r], twices[r], lasts[r], firsts[r], valids[r],
                    a_skewed[r*LANES*EA +: LANES*EA]} = row_out[r*RW +: RW];
        end
    endgenerate
    bf_skew #(.PARTS(ROWS), .WIDTH(RW)) skew_a (.clk(clk), .in(row_in), .out(row_out));
    bf_skew #(.PARTS(COLS), .WIDTH(LANES * EW)) skew_w (.clk(clk), .in(w_now), .out(w_skewed));

    bf_array_os #(
        .ROWS(ROWS), .COLS(COLS), .WB(EW), .AB(EA), .LANES(LANES), .ACC(ACC), .KIND(KIND),
        .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT)
    ) array (
        .clk(clk), .a(a_skewed), .w(w_skewed), .valid(valids), .first(firsts), .last(lasts),
        .twice(twices), .negate(negates), .shift(shift), .drain(drain)
    );
    bf_settle #(
        .COLS(COLS), .ACC(ACC), .XNOR(KIND == 0 && AB == 1 && A_FMT == 2 ? 1 : 0), .CW(CW)
    ) settle (
        .depth(cfg_depth), .in(drain), .out(settled)
    );
    always @(posedge clk) if (shift) out_acc <= settled;
endmodule
