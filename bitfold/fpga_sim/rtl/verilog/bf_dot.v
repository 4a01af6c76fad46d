// sum = SUM over LANES of a * w, combinational, as ACC bits of two's complement: terms, and a tree
// of adders. Every term and adder keeps its boundary, so that a PE is exactly the sum of them.
// KIND 0 binary:   w is one bit, +1 or -1 (FMT 2). With a of one bit too, the sum counts matches,
//                  a popcount of XNORs: SUM a * w = 2 * matches - K, settled behind the drain.
// KIND 1 ternary:  w is -1, 0 or 1 in two bits of two's complement.
// KIND 2 parallel: WB x AB multipliers.
// KIND 3 serial:   one bit plane of each operand, a popcount of ANDs (WB = AB = 1).
// KIND 4 dsp:      two lanes in one multiplier where its 18-bit port allows it.
module bf_dot #(
    parameter WB    = 2,
    parameter AB    = 2,
    parameter LANES = 1,
    parameter ACC   = 16,
    parameter KIND  = 2,
    parameter W_FMT = 1,
    parameter A_FMT = 0
) (
    input  wire [LANES*AB-1:0] a,
    input  wire [LANES*WB-1:0] w,
    output wire [     ACC-1:0] sum
);
    // Adders from tree node n down to a leaf: children of n are 2n + 1 and 2n + 2.
    function integer height;
        input integer node;
        integer at;
        begin
            height = 0;
            for (at = node; at < TERMS - 1; at = 2 * at + 1) height = height + 1;
        end
    endfunction

    // Coefficients of a packed product are FIELD bits apart; 18 bits is the narrow DSP port.
    localparam FIELD = WB + AB + 2;
    localparam PACKED = (KIND == 4) && (LANES > 1) && (FIELD + WB + 2 <= 18)
                     && (FIELD + AB + 2 <= 18);
    localparam XNOR = (KIND == 0) && (AB == 1) && (A_FMT == 2);
    localparam COUNTS = XNOR || KIND == 3;
    localparam SIGNED = !COUNTS && !(KIND != 0 && W_FMT == 0 && A_FMT == 0);
    localparam EACH = COUNTS ? 3 : PACKED ? 2 : 1;  // lanes of a term
    localparam TERMS = (LANES + EACH - 1) / EACH;
    // Products of two odd codes, or of an odd and an unsigned one, need a bit more.
    localparam ODD = W_FMT + A_FMT == 2 ? (W_FMT != 1) : W_FMT + A_FMT == 4;
    localparam LONE = (KIND == 0 || KIND == 1) ? AB + 1 : WB + AB + (ODD ? 1 : 0);
    localparam TERM = PACKED ? FIELD : COUNTS ? 2 : LONE;
    localparam TOTAL = TERM + height(0);

    wire [(2*TERMS-1)*TOTAL-1:0] nodes;
    genvar i;
    generate
        for (i = 0; i < TERMS; i = i + 1) begin : g_term
            localparam LEFT = LANES - i * EACH;
            localparam N = LEFT < EACH ? LEFT : EACH;
            wire [N*AB-1:0] a_of = a[i*EACH*AB +: N*AB];
            wire [N*WB-1:0] w_of = w[i*EACH*WB +: N*WB];
            wire [TERM-1:0] term;
            bf_resize #(.IN(TERM), .OUT(TOTAL), .SIGNED(SIGNED)) resize (
                .in(term), .out(nodes[(TERMS-1+i)*TOTAL +: TOTAL])
            );
            if (COUNTS) begin : g_count
                bf_count #(.LANES(N), .XNOR(XNOR)) lanes (.a(a_of), .w(w_of), .count(term));
            end else if (PACKED && N == 2) begin : g_packed
                bf_packed #(
                    .WB(WB), .AB(AB), .W_FMT(W_FMT), .A_FMT(A_FMT), .FIELD(FIELD)
                ) lanes (
                    .a(a_of), .w(w_of), .term(term)
                );
            end else begin : g_product
                wire [LONE-1:0] product;
                bf_product #(
                    .KIND(KIND), .WB(WB), .AB(AB), .W_FMT(W_FMT), .A_FMT(A_FMT), .TERM(LONE)
                ) lane (
                    .a(a_of), .w(w_of), .term(product)
                );
                bf_resize #(.IN(LONE), .OUT(TERM), .SIGNED(SIGNED)) widen (
                    .in(product), .out(term)
                );
            end
        end
        for (i = 0; i < TERMS - 1; i = i + 1) begin : g_node
            localparam FULL = TERM + height(i);
            localparam IN = FULL - 1 < ACC ? FULL - 1 : ACC;
            localparam OUT = FULL < ACC ? FULL : ACC;
            wire [OUT-1:0] both;
            bf_add #(.IN(IN), .OUT(OUT), .SIGNED(SIGNED)) add (
                .a(nodes[(2*i+1)*TOTAL +: IN]), .b(nodes[(2*i+2)*TOTAL +: IN]), .sum(both)
            );
            bf_resize #(.IN(OUT), .OUT(TOTAL), .SIGNED(SIGNED)) resize (
                .in(both), .out(nodes[i*TOTAL +: TOTAL])
            );
        end
    endgenerate
    bf_resize #(.IN(TOTAL), .OUT(ACC), .SIGNED(SIGNED)) widen (
        .in(nodes[TOTAL-1:0]), .out(sum)
    );
    wire unused = &{1'b0, nodes};  // beyond the bits of its own, a node repeats its sign
endmodule
