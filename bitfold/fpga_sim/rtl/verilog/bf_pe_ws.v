// One PE of the weight- or input-stationary array: operand y stays, operand x and the sum move.
// SHADOW 0: y is loaded through the register in use. SHADOW 1: through a second one, and swap_in,
// travelling with x, takes it over. ROLE 0: y is the weight; ROLE 1: y is the activation.
// TOP 1: the top row, which has no sum above. RIGHT 1: the last column, which passes nothing on.
// A unit of its own: an array is exactly the sum of its PEs.
(* keep_hierarchy *)
module bf_pe_ws #(
    parameter WB     = 2,
    parameter AB     = 2,
    parameter LANES  = 1,
    parameter ACC    = 16,
    parameter KIND   = 2,
    parameter SHADOW = 0,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter ROLE   = 0,
    parameter TOP    = 0,
    parameter RIGHT  = 0,
    parameter XB     = ROLE ? WB : AB,
    parameter YB     = ROLE ? AB : WB
) (
    input  wire                clk,
    input  wire [LANES*XB-1:0] x_in,
    input  wire [LANES*YB-1:0] y_in,
    input  wire                load,
    input  wire                swap_in,
    input  wire [     ACC-1:0] sum_in,
    output wire [LANES*XB-1:0] x_out,
    output wire [LANES*YB-1:0] y_out,
    output wire                swap_out,
    output reg  [     ACC-1:0] sum_out
);
    reg  [LANES*YB-1:0] chain;
    wire [LANES*YB-1:0] held;
    wire [     ACC-1:0] dot;

    generate
        if (SHADOW != 0) begin : g_double
            reg [LANES*YB-1:0] used;
            always @(posedge clk) if (swap_in) used <= chain;
            assign held = used;
        end else begin : g_single
            assign held = chain;
        end
        if (ROLE != 0) begin : g_input
            bf_dot #(
                .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC), .KIND(KIND), .W_FMT(W_FMT),
                .A_FMT(A_FMT)
            ) lanes (
                .a(held), .w(x_in), .sum(dot)
            );
        end else begin : g_weight
            bf_dot #(
                .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC), .KIND(KIND), .W_FMT(W_FMT),
                .A_FMT(A_FMT)
            ) lanes (
                .a(x_in), .w(held), .sum(dot)
            );
        end
    endgenerate

    assign y_out = chain;
    always @(posedge clk) if (load) chain <= y_in;
    generate
        if (RIGHT == 0) begin : g_right
            reg [LANES*XB-1:0] x_held;
            always @(posedge clk) x_held <= x_in;
            assign x_out = x_held;
        end else begin : g_last_column
            assign x_out = {LANES * XB{1'b0}};
        end
        if (RIGHT == 0 && SHADOW != 0) begin : g_swap
            reg swap_held;
            always @(posedge clk) swap_held <= swap_in;
            assign swap_out = swap_held;
        end else begin : g_no_swap
            assign swap_out = 1'b0;
        end
        if (TOP != 0) begin : g_top
            always @(posedge clk) sum_out <= dot;
            wire unused_sum = &{1'b0, sum_in};
        end else begin : g_below
            always @(posedge clk) sum_out <= sum_in + dot;
        end
        if (SHADOW == 0) begin : g_no_second
            wire unused_swap = swap_in;
        end
    endgenerate
endmodule
