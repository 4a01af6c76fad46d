// Weight-stationary (ROLE 0) or input-stationary (ROLE 1) array with its controller, skew
// registers and accumulator memory, between operand memories (a word is read the cycle after its
// address) and the output register. The depth lies on the rows; partial sums of its folds, and of
// the bit planes of a serial PE, meet in the accumulator memory, one word a streamed position.
module bf_core_ws #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter WB     = 2,
    parameter AB     = 2,
    parameter LANES  = 1,
    parameter ACC    = 16,
    parameter KIND   = 2,
    parameter SHADOW = 0,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter ROLE   = 0,
    parameter DEPTH  = 1024,  // words of the accumulator memory: most positions of a chunk
    parameter DW     = 10,
    parameter TW     = 4,
    parameter CW     = 16,
    parameter AW     = 24,
    parameter XB     = ROLE != 0 ? WB : AB,
    parameter YB     = ROLE != 0 ? AB : WB
) (
    input  wire                     clk,
    input  wire                     rst,
    input  wire                     start,
    input  wire [           CW-1:0] cfg_stream,
    input  wire [           CW-1:0] cfg_stream_last,
    input  wire [           CW-1:0] cfg_chunks,
    input  wire [           CW-1:0] cfg_folds,
    input  wire [           CW-1:0] cfg_top,
    input  wire [           CW-1:0] cfg_groups,
    input  wire [           CW-1:0] cfg_depth,
    output wire                     left_read,
    output wire [           AW-1:0] left_addr,
    input  wire [ROWS*LANES*XB-1:0] left_data,
    output wire                     top_read,
    output wire [           AW-1:0] top_addr,
    input  wire [COLS*LANES*YB-1:0] top_data,
    output wire                     ending,
    output reg                      out_valid,
    output reg                      out_last,
    output reg  [           TW-1:0] out_table,
    output reg  [     COLS*ACC-1:0] out_acc
);
    localparam SERIAL = KIND == 3;
    localparam EX = SERIAL ? 1 : XB;  // operand bits that enter a PE
    localparam EY = SERIAL ? 1 : YB;
    localparam XW = LANES * EX;
    wire load, swap, first, final_visit, twice, negate, left_last;
    wire [3:0] plane_a, plane_w, load_plane_a, load_plane_w;
    wire [CW-1:0] position;
    wire [TW-1:0] table_index;
    wire [ROWS*XW-1:0] x_now, x_skewed;
    wire [COLS*LANES*EY-1:0] y_now;
    wire [ROWS*(XW+1)-1:0] row_in, row_out;
    wire [ROWS-1:0] swaps;
    wire [COLS*ACC-1:0] sums, partial, settled;

    bf_control_ws #(
        .ROWS(ROWS), .COLS(COLS), .SHADOW(SHADOW), .PA(SERIAL ? AB : 1), .PW(SERIAL ? WB : 1),
        .W_FMT(W_FMT), .A_FMT(A_FMT), .ROLE(ROLE), .TW(TW), .CW(CW), .AW(AW)
    ) control (
        .clk(clk), .rst(rst), .start(start), .cfg_stream(cfg_stream),
        .cfg_stream_last(cfg_stream_last), .cfg_chunks(cfg_chunks), .cfg_folds(cfg_folds),
        .cfg_top(cfg_top), .cfg_groups(cfg_groups), .left_read(left_read), .left_addr(left_addr),
        .plane_a(plane_a), .plane_w(plane_w), .load_plane_a(load_plane_a),
        .load_plane_w(load_plane_w), .top_read(top_read), .top_addr(top_addr), .load(load),
        .swap(swap), .position(position), .first(first), .final_visit(final_visit),
        .twice(twice), .negate(negate), .table_index(table_index), .left_last(left_last)
    );

    assign ending = left_last;

    generate
        if (SERIAL) begin : g_planes
            bf_select #(.PARTS(ROWS * LANES), .B(XB)) select_x (
                .in(left_data), .plane(ROLE != 0 ? plane_w : plane_a), .out(x_now)
            );
            bf_select #(.PARTS(COLS * LANES), .B(YB)) select_y (
                .in(top_data), .plane(ROLE != 0 ? load_plane_a : load_plane_w), .out(y_now)
            );
            wire unused = &{1'b0, plane_a, plane_w, load_plane_a, load_plane_w};
        end else begin : g_whole
            assign x_now = left_data;
            assign y_now = top_data;
            wire unused = &{1'b0, plane_a, plane_w, load_plane_a, load_plane_w};
        end
    endgenerate

    genvar r;
    generate
        for (r = 0; r < ROWS; r = r + 1) begin : g_row
            assign row_in[r*(XW+1) +: XW+1] = {SHADOW != 0 && swap, x_now[r*XW +: XW]};
            assign {swaps[r], x_skewed[r*XW +: XW]} = row_out[r*(XW+1) +: XW+1];
        end
    endgenerate
    bf_skew #(.PARTS(ROWS), .WIDTH(XW + 1)) skew (.clk(clk), .in(row_in), .out(row_out));

    bf_array_ws #(
        .ROWS(ROWS), .COLS(COLS), .WB(SERIAL ? 1 : WB), .AB(SERIAL ? 1 : AB), .LANES(LANES),
        .ACC(ACC), .KIND(KIND), .SHADOW(SHADOW), .W_FMT(W_FMT), .A_FMT(A_FMT), .ROLE(ROLE)
    ) array (
        .clk(clk), .x(x_skewed), .y(y_now), .load(load), .swap(swaps), .sums(sums)
    );
    bf_skew #(.PARTS(COLS), .WIDTH(ACC), .REVERSE(1)) deskew (
        .clk(clk), .in(sums), .out(partial)
    );

    // What was said of a position when it was issued, for when its sums arrive.
    localparam TAGS = 6 + DW + TW;
    wire [TAGS-1:0] tags;
    wire valid_r, first_r, final_r, twice_r, negate_r, last_r;
    wire [DW-1:0] spot_r;
    wire [TW-1:0] table_r;
    bf_delay #(.WIDTH(TAGS), .DELAY(ROWS + COLS - 1)) arrival (
        .clk(clk),
        .in({left_read && !rst, first, final_visit, SERIAL && twice, SERIAL && negate, left_last, position[DW-1:0],
             table_index}),
        .out(tags)
    );
    assign {valid_r, first_r, final_r, twice_r, negate_r, last_r, spot_r, table_r} = tags;

    reg valid_s, first_s, final_s, twice_s, negate_s, last_s;
    reg [DW-1:0] spot_s;
    reg [TW-1:0] table_s;
    always @(posedge clk) begin
        {valid_s, first_s, final_s, twice_s, negate_s, last_s} <=
            {valid_r && !rst, first_r, final_r, twice_r, negate_r, last_r};
        spot_s  <= spot_r;
        table_s <= table_r;
    end

    wire [COLS*ACC-1:0] kept, total;
    bf_memory #(.WIDTH(COLS * ACC), .DEPTH(DEPTH), .AW(DW)) accumulators (
        .clk(clk), .write(valid_s), .write_addr(spot_s), .write_data(total),
        .read(valid_r), .read_addr(spot_r), .read_data(kept)
    );
    genvar c;
    generate
        for (c = 0; c < COLS; c = c + 1) begin : g_column
            wire [ACC-1:0] stored = kept[c*ACC +: ACC];
            wire [ACC-1:0] part = partial[c*ACC +: ACC];
            if (SERIAL) begin : g_serial
                assign total[c*ACC +: ACC] =
                    (first_s ? {ACC{1'b0}} : twice_s ? {stored[ACC-2:0], 1'b0} : stored)
                    + (negate_s ? -part : part);
            end else begin : g_whole
                assign total[c*ACC +: ACC] = (first_s ? {ACC{1'b0}} : stored) + part;
            end
        end
        if (!SERIAL) begin : g_no_planes
            wire unused_s = &{1'b0, twice_s, negate_s};
        end
        if (CW > DW) begin : g_short_position
            wire unused_position = &{1'b0, position[CW-1:DW]};
        end
    endgenerate

    bf_settle #(
        .COLS(COLS), .ACC(ACC), .XNOR(KIND == 0 && AB == 1 && A_FMT == 2 ? 1 : 0), .CW(CW)
    ) settle (
        .depth(cfg_depth), .in(total), .out(settled)
    );
    always @(posedge clk) begin
        out_valid <= valid_s && final_s && !rst;
        out_last  <= last_s;
        if (valid_s && final_s) begin
            out_acc   <= settled;
            out_table <= table_s;
        end
    end
endmodule
