// sum = a + b: one carry chain. SIGNED 0: unsigned. A unit of its own.
(* keep_hierarchy *)
module bf_add #(
    parameter IN     = 4,
    parameter OUT    = 5,  // IN + 1, or fewer: sums are modular
    parameter SIGNED = 1
) (
    input  wire [ IN-1:0] a,
    input  wire [ IN-1:0] b,
    output wire [OUT-1:0] sum
);
    wire [IN:0] whole = {SIGNED != 0 && a[IN-1], a} + {SIGNED != 0 && b[IN-1], b};
    assign sum = whole[OUT-1:0];
    generate
        if (OUT <= IN) begin : g_cut
            wire unused = &{1'b0, whole[IN:OUT]};
        end
    endgenerate
endmodule
