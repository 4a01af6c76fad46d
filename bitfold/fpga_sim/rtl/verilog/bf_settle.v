// Results as they leave the array: where PEs count matches of +1 and -1, SUM a * w = 2m - K.
module bf_settle #(
    parameter COLS = 8,
    parameter ACC  = 16,
    parameter XNOR = 0,
    parameter CW   = 16
) (
    input  wire [      CW-1:0] depth,
    input  wire [COLS*ACC-1:0] in,
    output wire [COLS*ACC-1:0] out
);
    genvar c;
    generate
        if (XNOR != 0) begin : g_matches
            wire [ACC-1:0] depth_acc;
            bf_resize #(.IN(CW + 1), .OUT(ACC)) resize (.in({1'b0, depth}), .out(depth_acc));
            for (c = 0; c < COLS; c = c + 1) begin : g_column
                assign out[c*ACC +: ACC] = {in[c*ACC +: ACC-1], 1'b0} - depth_acc;
            end
            wire unused = &{1'b0, in};
        end else begin : g_wire
            assign out = in;
            wire unused = &{1'b0, depth};
        end
    endgenerate
endmodule
