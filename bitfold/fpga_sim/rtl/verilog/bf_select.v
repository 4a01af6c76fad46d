// Bit plane `plane` of PARTS packed operands of B bits.
module bf_select #(
    parameter PARTS = 8,
    parameter B     = 2
) (
    input  wire [PARTS*B-1:0] in,
    input  wire [        3:0] plane,
    output wire [  PARTS-1:0] out
);
    genvar i;
    generate
        if (B == 1) begin : g_wire
            assign out = in;
            wire unused = &{1'b0, plane};
        end else begin : g_mux
            for (i = 0; i < PARTS; i = i + 1) begin : g_part
                wire [15:0] bits = {{(16 - B) {1'b0}}, in[i*B +: B]};
                assign out[i] = bits[plane];
            end
        end
    endgenerate
endmodule
