// out is in, DELAY cycles later.
module bf_delay #(
    parameter WIDTH = 1,
    parameter DELAY = 1
) (
    input  wire             clk,
    input  wire [WIDTH-1:0] in,
    output wire [WIDTH-1:0] out
);
    generate
        if (DELAY == 0) begin : g_wire
            assign out = in;
            wire unused = clk;
        end else if (DELAY == 1) begin : g_one
            reg [WIDTH-1:0] taps;
            always @(posedge clk) taps <= in;
            assign out = taps;
        end else begin : g_line
            reg [DELAY*WIDTH-1:0] taps;
            always @(posedge clk) taps <= {taps[(DELAY-1)*WIDTH-1:0], in};
            assign out = taps[DELAY*WIDTH-1:(DELAY-1)*WIDTH];
        end
    endgenerate
endmodule
