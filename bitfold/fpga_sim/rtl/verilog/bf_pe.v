// One PE of the output-stationary array: it owns an accumulator and passes its operands on.
// SHADOW 0: the accumulator itself shifts the result down. SHADOW 1: a drain register does, while
// the next tile accumulates. TOP 1: the top row, which has no row above and keeps its value.
// RIGHT 1, BOTTOM 1: the last column or row, which passes nothing on.
// A unit of its own: an array is exactly the sum of its PEs.
(* keep_hierarchy *)
module bf_pe #(
    parameter WB     = 2,
    parameter AB     = 2,
    parameter LANES  = 1,
    parameter ACC    = 16,
    parameter KIND   = 2,
    parameter SHADOW = 0,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter TOP    = 0,
    parameter RIGHT  = 0,
    parameter BOTTOM = 0
) (
    input  wire                clk,
    input  wire [LANES*AB-1:0] a_in,
    input  wire [LANES*WB-1:0] w_in,
    input  wire                valid_in,
    input  wire                first_in,   // the tile's first step: forget the sum
    input  wire                last_in,    // the tile's last step: SHADOW copies the sum aside
    input  wire                double_in,  // serial only: the sum moves up one bit plane
    input  wire                negate_in,  // serial only: the plane of a sign bit
    input  wire                shift,
    input  wire [     ACC-1:0] drain_in,
    output wire [LANES*AB-1:0] a_out,
    output wire [LANES*WB-1:0] w_out,
    output wire                valid_out,
    output wire                first_out,
    output wire                last_out,
    output wire                double_out,
    output wire                negate_out,
    output wire [     ACC-1:0] drain_out
);
    reg  [ACC-1:0] acc;
    wire [ACC-1:0] dot;
    wire [ACC-1:0] next;

    bf_dot #(
        .WB(WB), .AB(AB), .LANES(LANES), .ACC(ACC), .KIND(KIND), .W_FMT(W_FMT), .A_FMT(A_FMT)
    ) lanes (
        .a(a_in), .w(w_in), .sum(dot)
    );

    generate
        if (KIND == 3) begin : g_serial
            assign next = (first_in ? {ACC{1'b0}} : double_in ? {acc[ACC-2:0], 1'b0} : acc)
                        + (negate_in ? -dot : dot);
        end else begin : g_whole
            assign next = (first_in ? {ACC{1'b0}} : acc) + dot;
            wire unused = &{1'b0, double_in, negate_in};
        end
    endgenerate

    generate
        if (RIGHT == 0) begin : g_right
            reg [LANES*AB-1:0] a_held;
            reg valid_held, first_held;
            always @(posedge clk) begin
                a_held     <= a_in;
                valid_held <= valid_in;
                first_held <= first_in;
            end
            assign a_out = a_held;
            assign valid_out = valid_held;
            assign first_out = first_held;
        end else begin : g_last_column
            assign a_out = {LANES * AB{1'b0}};
            assign valid_out = 1'b0;
            assign first_out = 1'b0;
        end
        if (RIGHT == 0 && SHADOW != 0) begin : g_last
            reg last_held;
            always @(posedge clk) last_held <= last_in;
            assign last_out = last_held;
        end else begin : g_no_last
            assign last_out = 1'b0;
        end
        if (RIGHT == 0 && KIND == 3) begin : g_planes
            reg double_held, negate_held;
            always @(posedge clk) begin
                double_held <= double_in;
                negate_held <= negate_in;
            end
            assign double_out = double_held;
            assign negate_out = negate_held;
        end else begin : g_no_planes
            assign double_out = 1'b0;
            assign negate_out = 1'b0;
        end
        if (BOTTOM == 0) begin : g_down
            reg [LANES*WB-1:0] w_held;
            always @(posedge clk) w_held <= w_in;
            assign w_out = w_held;
        end else begin : g_last_row
            assign w_out = {LANES * WB{1'b0}};
        end
    endgenerate

    generate
        if (SHADOW != 0) begin : g_shadow
            reg [ACC-1:0] drain;
            always @(posedge clk) if (valid_in) acc <= next;
            if (TOP != 0) begin : g_top
                always @(posedge clk) if (last_in) drain <= next;
            end else begin : g_below
                always @(posedge clk)
                    if (last_in) drain <= next;
                    else if (shift) drain <= drain_in;
            end
            assign drain_out = drain;
        end else begin : g_shared
            wire unused_last = last_in;
            if (TOP != 0) begin : g_top
                always @(posedge clk) if (valid_in) acc <= next;
            end else begin : g_below
                always @(posedge clk)
                    if (shift) acc <= drain_in;
                    else if (valid_in) acc <= next;
            end
            assign drain_out = acc;
        end
        if (TOP != 0) begin : g_no_drain_input
            wire unused_drain = &{1'b0, shift, drain_in};
        end
    endgenerate
endmodule
