// An operand of B bits as a signed number of B + 1 bits.
// FMT 0: unsigned. FMT 1: two's complement. FMT 2: index of an odd code, 2i - (2^B - 1).
module bf_decode #(
    parameter B   = 2,
    parameter FMT = 0
) (
    input  wire [B-1:0] in,
    output wire [  B:0] out
);
    generate
        if (FMT == 0) begin : g_unsigned
            assign out = {1'b0, in};
        end else if (FMT == 1) begin : g_signed
            assign out = {in[B-1], in};
        end else if (B == 1) begin : g_binary
            assign out = {~in, 1'b1};
        end else begin : g_odd
            // -2^B + 2i + 1: the inverted top bit is the sign, the least bit is always set.
            assign out = {~in[B-1], in[B-2:0], 1'b1};
        end
    endgenerate
endmodule
