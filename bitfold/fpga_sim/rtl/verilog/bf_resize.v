// Two's complement IN bits to OUT bits: sign-extended, or the low bits (sums are modular).
module bf_resize #(
    parameter IN  = 4,
    parameter OUT = 8
) (
    input  wire [ IN-1:0] in,
    output wire [OUT-1:0] out
);
    generate
        if (OUT > IN) begin : g_extend
            assign out = {{(OUT - IN) {in[IN-1]}}, in};
        end else if (OUT == IN) begin : g_same
            assign out = in;
        end else begin : g_cut
            assign out = in[OUT-1:0];
            wire unused = &{1'b0, in[IN-1:OUT]};
        end
    endgenerate
endmodule
