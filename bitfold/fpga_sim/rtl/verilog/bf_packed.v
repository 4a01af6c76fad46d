// term = a0 * w0 + a1 * w1 from one multiplier:
//   (a0 + a1 * X)(w1 + w0 * X) = a0 w1 + (a0 w0 + a1 w1) X + a1 w0 X^2   with X = 2^FIELD
// The middle field is the dot product; a negative lower field has borrowed one from it.
(* keep_hierarchy *)
module bf_packed #(
    parameter WB    = 2,
    parameter AB    = 2,
    parameter W_FMT = 1,
    parameter A_FMT = 0,
    parameter FIELD = 6
) (
    input  wire [ 2*AB-1:0] a,
    input  wire [ 2*WB-1:0] w,
    output wire [FIELD-1:0] term
);
    localparam AW = FIELD + AB + 2;
    localparam WW = FIELD + WB + 2;
    wire [AB:0] a0, a1;
    wire [WB:0] w0, w1;
    bf_decode #(.B(AB), .FMT(A_FMT)) decode_a0 (.in(a[AB-1:0]), .out(a0));
    bf_decode #(.B(WB), .FMT(W_FMT)) decode_w0 (.in(w[WB-1:0]), .out(w0));
    bf_decode #(.B(AB), .FMT(A_FMT)) decode_a1 (.in(a[2*AB-1:AB]), .out(a1));
    bf_decode #(.B(WB), .FMT(W_FMT)) decode_w1 (.in(w[2*WB-1:WB]), .out(w1));
    wire signed [AW-1:0] a_packed;
    wire signed [WW-1:0] w_packed;
    (* use_dsp = "yes" *)
    wire signed [AW+WW-1:0] product;
    assign a_packed = {{(AW - AB - 1) {a0[AB]}}, a0} + {a1[AB], a1, {FIELD{1'b0}}};
    assign w_packed = {{(WW - WB - 1) {w1[WB]}}, w1} + {w0[WB], w0, {FIELD{1'b0}}};
    /* verilator lint_off WIDTH */
    assign product = a_packed * w_packed;
    /* verilator lint_on WIDTH */
    assign term = product[2*FIELD-1:FIELD] + {{(FIELD - 1) {1'b0}}, product[FIELD-1]};
    wire unused = &{1'b0, product[AW+WW-1:2*FIELD], product[FIELD-2:0]};
endmodule
