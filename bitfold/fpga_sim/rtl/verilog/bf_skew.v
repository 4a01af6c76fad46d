// Part i of PARTS leaves i cycles after it entered; REVERSE 1: PARTS - 1 - i cycles.
module bf_skew #(
    parameter PARTS   = 8,
    parameter WIDTH   = 2,
    parameter REVERSE = 0
) (
    input  wire                   clk,
    input  wire [PARTS*WIDTH-1:0] in,
    output wire [PARTS*WIDTH-1:0] out
);
    genvar i;
    generate
        for (i = 0; i < PARTS; i = i + 1) begin : g_part
            bf_delay #(.WIDTH(WIDTH), .DELAY(REVERSE != 0 ? PARTS - 1 - i : i)) line (
                .clk(clk), .in(in[i*WIDTH +: WIDTH]), .out(out[i*WIDTH +: WIDTH])
            );
        end
    endgenerate
endmodule
