// IN bits to OUT bits: extended by the sign, or by zeros (SIGNED 0), or the low bits.
module bf_resize #(
    parameter IN     = 4,
    parameter OUT    = 8,
    parameter SIGNED = 1
) (
    input  wire [ IN-1:0] in,
    output wire [OUT-1:0] out
);
    generate
        if (OUT > IN) begin : g_extend
            assign out = {{(OUT - IN) {SIGNED != 0 && in[IN-1]}}, in};
        end else if (OUT == IN) begin : g_same
            assign out = in;
        end else begin : g_cut
            assign out = in[OUT-1:0];
            wire unused = &{1'b0, in[IN-1:OUT]};
        end
    endgenerate
endmodule
