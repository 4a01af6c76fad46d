// The order of bit planes of a serial PE: pairs (a, w) by falling significance a + w, so that the
// sum moves up by one bit between significances. One pair, (0, 0), where AB = WB = 1.
module bf_planes #(
    parameter WB    = 2,
    parameter AB    = 2,
    parameter W_FMT = 1,
    parameter A_FMT = 0
) (
    input  wire       clk,
    input  wire       restart,
    input  wire       next,
    output reg  [3:0] plane_a,
    output reg  [3:0] plane_w,
    output reg        opening,  // no pair before this one
    output reg        fresh,    // the first pair of its significance
    output wire       closing,  // no pair after this one
    output wire       negate    // exactly one of the two is a plane of signs
);
    localparam [3:0] TOP_A = AB[3:0] - 4'd1;
    localparam [3:0] TOP_W = WB[3:0] - 4'd1;
    wire [3:0] below = plane_a + plane_w - 4'd1;
    wire same = plane_a != 4'd0 && plane_w != TOP_W;

    assign closing = plane_a == 4'd0 && plane_w == 4'd0;
    assign negate = (A_FMT == 1 && plane_a == TOP_A) ^ (W_FMT == 1 && plane_w == TOP_W);

    always @(posedge clk) begin
        if (restart || (next && closing)) begin
            plane_a <= TOP_A;
            plane_w <= TOP_W;
            opening <= 1'b1;
            fresh   <= 1'b0;
        end else if (next) begin
            opening <= 1'b0;
            fresh   <= !same;
            if (same) begin
                plane_a <= plane_a - 4'd1;
                plane_w <= plane_w + 4'd1;
            end else begin
                plane_a <= below > TOP_A ? TOP_A : below;
                plane_w <= below > TOP_A ? below - TOP_A : 4'd0;
            end
        end
    end
endmodule
