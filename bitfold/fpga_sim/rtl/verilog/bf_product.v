// One lane's term, in TERM bits: unsigned where both operands are, else two's complement.
// KIND 0 binary: w is one bit, +1 or -1. KIND 1 ternary: w is -1, 0 or 1 in two bits of two's
// complement. Otherwise a WB x AB multiplier. A unit of its own: synthesis maps it by itself.
(* keep_hierarchy *)
module bf_product #(
    parameter KIND  = 2,
    parameter WB    = 2,
    parameter AB    = 2,
    parameter W_FMT = 1,
    parameter A_FMT = 0,
    // Products of two odd codes, or of an odd and an unsigned one, need a bit more than both have.
    parameter TERM  = KIND < 2 ? AB + 1
                    : WB + AB + ((W_FMT == 2 && A_FMT != 1) || (W_FMT == 0 && A_FMT == 2) ? 1 : 0)
) (
    input  wire [  AB-1:0] a,
    input  wire [  WB-1:0] w,
    output wire [TERM-1:0] term
);
    wire signed [AB:0] value;
    bf_decode #(.B(AB), .FMT(A_FMT)) decode_a (.in(a), .out(value));
    generate
        if (KIND == 0) begin : g_binary
            assign term = w[0] ? value : -value;
        end else if (KIND == 1) begin : g_ternary
            assign term = !w[0] ? {TERM{1'b0}} : w[WB-1] ? -value : value;
        end else begin : g_parallel
            wire signed [WB:0] weight;
            wire signed [WB+AB+1:0] whole;
            bf_decode #(.B(WB), .FMT(W_FMT)) decode_w (.in(w), .out(weight));
            // Signed operands extend themselves; written out, synthesis would not see that they do.
            /* verilator lint_off WIDTH */
            assign whole = value * weight;
            /* verilator lint_on WIDTH */
            assign term = whole[TERM-1:0];
            wire unused = &{1'b0, whole[WB+AB+1:TERM]};
        end
    endgenerate
endmodule
