// How many of at most three lanes match: a 6-input table a result bit. A unit of its own.
// XNOR 1: bits of +1 and -1 are equal. XNOR 0: both planes have the bit.
(* keep_hierarchy *)
module bf_count #(
    parameter LANES = 3,
    parameter XNOR  = 1
) (
    input  wire [LANES-1:0] a,
    input  wire [LANES-1:0] w,
    output wire [      1:0] count
);
    wire [2:0] hits;
    assign hits[LANES-1:0] = XNOR != 0 ? ~(a ^ w) : a & w;
    generate
        if (LANES < 3) begin : g_fewer
            assign hits[2:LANES] = {(3 - LANES) {1'b0}};
        end
    endgenerate
    assign count = {1'b0, hits[0]} + {1'b0, hits[1]} + {1'b0, hits[2]};
endmodule
