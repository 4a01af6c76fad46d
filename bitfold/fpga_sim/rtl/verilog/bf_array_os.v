// ROWS x COLS output-stationary PEs: activations enter row by row on the left and move right,
// weights enter column by column at the top and move down, results leave at the bottom.
module bf_array_os #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter WB     = 2,
    parameter AB     = 2,
    parameter LANES  = 1,
    parameter ACC    = 16,
    parameter KIND   = 2,
    parameter SHADOW = 0,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0
) (
    input  wire                     clk,
    input  wire [ROWS*LANES*AB-1:0] a,
    input  wire [COLS*LANES*WB-1:0] w,
    input  wire [         ROWS-1:0] valid,
    input  wire [         ROWS-1:0] first,
    input  wire [         ROWS-1:0] last,
    input  wire [         ROWS-1:0] twice,
    input  wire [         ROWS-1:0] negate,
    input  wire                     shift,
    output wire [     COLS*ACC-1:0] drain
);
    localparam AW = LANES * AB;
    localparam WW = LANES * WB;
    wire [ROWS*(COLS+1)*AW-1:0] a_mesh;
    wire [(ROWS+1)*COLS*WW-1:0] w_mesh;
    wire [(ROWS+1)*COLS*ACC-1:0] drain_mesh;
    wire [ROWS*(COLS+1)-1:0] valid_mesh, first_mesh, last_mesh, twice_mesh, negate_mesh;

    assign w_mesh[COLS*WW-1:0] = w;
    assign drain_mesh[COLS*ACC-1:0] = {COLS * ACC{1'b0}};
    assign drain = drain_mesh[ROWS*COLS*ACC +: COLS*ACC];

    genvar r, c;
    generate
        for (r = 0; r < ROWS; r = r + 1) begin : g_row
            assign a_mesh[r*(COLS+1)*AW +: AW] = a[r*AW +: AW];
            assign valid_mesh[r*(COLS+1)] = valid[r];
            assign first_mesh[r*(COLS+1)] = first[r];
            assign last_mesh[r*(COLS+1)] = last[r];
            assign twice_mesh[r*(COLS+1)] = twice[r];
            assign negate_mesh[r*(COLS+1)] = negate[r];
            for (c = 0; c < COLS; c = c + 1) begin : g_col
                localparam H = r * (COLS + 1) + c;  // wire to the left of this PE
                localparam V = r * COLS + c;  // wire above it
                bf_pe #(
                    .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC), .KIND(KIND), .SHADOW(SHADOW),
                    .W_FMT(W_FMT), .A_FMT(A_FMT), .TOP(r == 0 ? 1 : 0),
                    .RIGHT(c == COLS - 1 ? 1 : 0), .BOTTOM(r == ROWS - 1 ? 1 : 0)
                ) pe (
                    .clk(clk),
                    .a_in(a_mesh[H*AW +: AW]), .a_out(a_mesh[(H+1)*AW +: AW]),
                    .w_in(w_mesh[V*WW +: WW]), .w_out(w_mesh[(V+COLS)*WW +: WW]),
                    .valid_in(valid_mesh[H]), .valid_out(valid_mesh[H+1]),
                    .first_in(first_mesh[H]), .first_out(first_mesh[H+1]),
                    .last_in(last_mesh[H]), .last_out(last_mesh[H+1]),
                    .double_in(twice_mesh[H]), .double_out(twice_mesh[H+1]),
                    .negate_in(negate_mesh[H]), .negate_out(negate_mesh[H+1]),
                    .shift(shift),
                    .drain_in(drain_mesh[V*ACC +: ACC]),
                    .drain_out(drain_mesh[(V+COLS)*ACC +: ACC])
                );
            end
            // What leaves on the right has been used by every column.
            wire unused = &{1'b0, a_mesh[(r*(COLS+1)+COLS)*AW +: AW], valid_mesh[r*(COLS+1)+COLS],
                            first_mesh[r*(COLS+1)+COLS], last_mesh[r*(COLS+1)+COLS],
                            twice_mesh[r*(COLS+1)+COLS], negate_mesh[r*(COLS+1)+COLS]};
        end
    endgenerate
    wire unused_bottom = &{1'b0, w_mesh[ROWS*COLS*WW +: COLS*WW]};
endmodule
