// One PE of the weight- or input-stationary array: operand y stays, operand x and the sum move.
// SHADOW 0: y is loaded through the register in use. SHADOW 1: through a second one, and swap_in,
// travelling with x, takes it over. ROLE 0: y is the weight; ROLE 1: y is the activation.
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
    parameter XB     = ROLE ? WB : AB,
    parameter YB     = ROLE ? AB : WB
) (
    input  wire                clk,
    input  wire [LANES*XB-1:0] x_in,
    input  wire [LANES*YB-1:0] y_in,
    input  wire                load,
    input  wire                swap_in,
    input  wire [     ACC-1:0] sum_in,
    output reg  [LANES*XB-1:0] x_out,
    output wire [LANES*YB-1:0] y_out,
    output reg                 swap_out,
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
    always @(posedge clk) begin
        if (load) chain <= y_in;
        x_out    <= x_in;
        swap_out <= swap_in;
        sum_out  <= sum_in + dot;
    end
endmodule
