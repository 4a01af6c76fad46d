// Counts steps from 0 to limit - 1 and round again. A unit of its own for synthesis.
(* keep_hierarchy *)
module bf_counter #(
    parameter W = 16
) (
    input  wire         clk,
    input  wire         clear,
    input  wire         step,
    input  wire [W-1:0] limit,
    output reg  [W-1:0] value,
    output wire         last
);
    wire [W-1:0] next = value + 1'b1;
    assign last = next == limit;
    always @(posedge clk)
        if (clear) value <= {W{1'b0}};
        else if (step) value <= last ? {W{1'b0}} : next;
endmodule
