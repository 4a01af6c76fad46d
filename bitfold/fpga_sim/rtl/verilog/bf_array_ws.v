// ROWS x COLS PEs that keep operand y: x enters on the left and moves right, partial sums enter as
// zero at the top and move down, y is loaded from the top, one row of PEs a cycle.
module bf_array_ws #(
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
    parameter ROLE   = 0,
    parameter XB     = ROLE != 0 ? WB : AB,
    parameter YB     = ROLE != 0 ? AB : WB
) (
    input  wire                     clk,
    input  wire [ROWS*LANES*XB-1:0] x,
    input  wire [COLS*LANES*YB-1:0] y,
    input  wire                     load,
    input  wire [         ROWS-1:0] swap,
    output wire [     COLS*ACC-1:0] sums
);
    localparam XW = LANES * XB;
    localparam YW = LANES * YB;
    wire [ROWS*(COLS+1)*XW-1:0] x_mesh;
    wire [ROWS*(COLS+1)-1:0] swap_mesh;
    wire [(ROWS+1)*COLS*YW-1:0] y_mesh;
    wire [(ROWS+1)*COLS*ACC-1:0] sum_mesh;

    assign y_mesh[COLS*YW-1:0] = y;
    assign sum_mesh[COLS*ACC-1:0] = {COLS * ACC{1'b0}};
    assign sums = sum_mesh[ROWS*COLS*ACC +: COLS*ACC];

    genvar r, c;
    generate
        for (r = 0; r < ROWS; r = r + 1) begin : g_row
            assign x_mesh[r*(COLS+1)*XW +: XW] = x[r*XW +: XW];
            assign swap_mesh[r*(COLS+1)] = swap[r];
            for (c = 0; c < COLS; c = c + 1) begin : g_col
                localparam H = r * (COLS + 1) + c;  // wire to the left of this PE
                localparam V = r * COLS + c;  // wire above it
                bf_pe_ws #(
                    .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC), .KIND(KIND), .SHADOW(SHADOW),
                    .W_FMT(W_FMT), .A_FMT(A_FMT), .ROLE(ROLE),
                    .TOP(r == 0 ? 1 : 0), .RIGHT(c == COLS - 1 ? 1 : 0)
                ) pe (
                    .clk(clk), .load(load),
                    .x_in(x_mesh[H*XW +: XW]), .x_out(x_mesh[(H+1)*XW +: XW]),
                    .swap_in(swap_mesh[H]), .swap_out(swap_mesh[H+1]),
                    .y_in(y_mesh[V*YW +: YW]), .y_out(y_mesh[(V+COLS)*YW +: YW]),
                    .sum_in(sum_mesh[V*ACC +: ACC]), .sum_out(sum_mesh[(V+COLS)*ACC +: ACC])
                );
            end
            wire unused = &{1'b0, x_mesh[(r*(COLS+1)+COLS)*XW +: XW], swap_mesh[r*(COLS+1)+COLS]};
        end
    endgenerate
    wire unused_bottom = &{1'b0, y_mesh[ROWS*COLS*YW +: COLS*YW]};
endmodule
