// sum = SUM over LANES of a * w, combinational, as ACC bits of two's complement.
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
    function integer bits_of;  // least b with n <= 2^b
        input integer n;
        begin
            bits_of = 0;
            while ((1 << bits_of) < n) bits_of = bits_of + 1;
        end
    endfunction

    // Coefficients of a packed product are FIELD bits apart; 18 bits is the narrow DSP port.
    localparam FIELD = WB + AB + 2;
    localparam PACKED = (KIND == 4) && (LANES > 1) && (FIELD + WB + 2 <= 18)
                     && (FIELD + AB + 2 <= 18);
    localparam XNOR = (KIND == 0) && (AB == 1) && (A_FMT == 2);
    localparam TERMS = PACKED ? (LANES + 1) / 2 : LANES;
    localparam TERM = PACKED ? FIELD : (XNOR || KIND == 3) ? 2 :
                      (KIND == 0 || KIND == 1) ? AB + 1 : WB + AB + 1;
    localparam TOTAL = TERM + bits_of(TERMS);

    wire [TERMS*TOTAL-1:0] terms;
    genvar i;
    generate
        for (i = 0; i < TERMS; i = i + 1) begin : g_term
            wire [TERM-1:0] term;
            bf_resize #(.IN(TERM), .OUT(TOTAL)) resize (
                .in(term), .out(terms[i*TOTAL +: TOTAL])
            );
            if (XNOR) begin : g_xnor
                assign term = {1'b0, ~(a[i] ^ w[i])};
            end else if (KIND == 3) begin : g_serial
                assign term = {1'b0, a[i] & w[i]};
            end else if (KIND == 0) begin : g_binary
                wire [AB:0] value;
                bf_decode #(.B(AB), .FMT(A_FMT)) decode (.in(a[i*AB +: AB]), .out(value));
                assign term = w[i] ? value : -value;
            end else if (KIND == 1) begin : g_ternary
                wire [AB:0] value;
                bf_decode #(.B(AB), .FMT(A_FMT)) decode (.in(a[i*AB +: AB]), .out(value));
                assign term = !w[i*WB] ? {(AB + 1) {1'b0}} : w[i*WB + WB-1] ? -value : value;
            end else if (PACKED) begin : g_packed
                bf_packed #(
                    .WB(WB), .AB(AB), .W_FMT(W_FMT), .A_FMT(A_FMT), .FIELD(FIELD),
                    .PAIR(2 * i + 1 < LANES ? 1 : 0)
                ) packed_lanes (
                    .a(a[2*i*AB +: (2 * i + 1 < LANES ? 2 : 1) * AB]),
                    .w(w[2*i*WB +: (2 * i + 1 < LANES ? 2 : 1) * WB]),
                    .term(term)
                );
            end else begin : g_parallel
                bf_product #(.WB(WB), .AB(AB), .W_FMT(W_FMT), .A_FMT(A_FMT)) multiply (
                    .a(a[i*AB +: AB]), .w(w[i*WB +: WB]), .term(term)
                );
            end
        end
    endgenerate

    reg [TOTAL-1:0] total;
    integer n;
    always @* begin
        total = {TOTAL{1'b0}};
        for (n = 0; n < TERMS; n = n + 1) total = total + terms[n*TOTAL +: TOTAL];
    end

    bf_resize #(.IN(TOTAL), .OUT(ACC)) widen (.in(total), .out(sum));
endmodule
