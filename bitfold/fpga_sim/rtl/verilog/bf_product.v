// term = a * w in WB + AB + 1 bits of two's complement.
module bf_product #(
    parameter WB    = 2,
    parameter AB    = 2,
    parameter W_FMT = 1,
    parameter A_FMT = 0
) (
    input  wire [   AB-1:0] a,
    input  wire [   WB-1:0] w,
    output wire [WB+AB:0] term
);
    wire signed [AB:0] value;
    wire signed [WB:0] weight;
    wire signed [WB+AB+1:0] whole;
    bf_decode #(.B(AB), .FMT(A_FMT)) decode_a (.in(a), .out(value));
    bf_decode #(.B(WB), .FMT(W_FMT)) decode_w (.in(w), .out(weight));
    // Signed operands extend themselves; written out, synthesis would not see that they do.
    /* verilator lint_off WIDTH */
    assign whole = value * weight;
    /* verilator lint_on WIDTH */
    assign term = whole[WB+AB:0];
    wire unused = whole[WB+AB+1];
endmodule
