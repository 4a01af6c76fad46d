// An address that goes on by one each step, or jumps. A unit of its own for synthesis.
(* keep_hierarchy *)
module bf_cursor #(
    parameter W = 24
) (
    input  wire         clk,
    input  wire         clear,
    input  wire         step,
    input  wire         jump,    // with step
    input  wire [W-1:0] target,
    output reg  [W-1:0] value,
    output wire [W-1:0] next
);
    assign next = value + 1'b1;
    always @(posedge clk)
        if (clear) value <= {W{1'b0}};
        else if (step) value <= jump ? target : next;
endmodule
