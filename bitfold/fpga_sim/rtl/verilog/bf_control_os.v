// The output-stationary controller. For every group, column fold and row fold: one tile of
// cfg_steps operand steps (times the pairs of bit planes of a serial PE), then ROWS shifts.
// Memory order: left (group, row fold, step), top (group, column fold, step).
// SHADOW 0 waits for the drain; SHADOW 1 starts a tile at least 2 ROWS + COLS after the last one.
// The next run may start with ending: it waits for the drain, or the distance, as tiles do.
// A unit of its own for synthesis.
(* keep_hierarchy *)
module bf_control_os #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter SHADOW = 0,
    parameter PA     = 1,  // bit planes of an activation, of a weight; 1 unless serial
    parameter PW     = 1,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter TW     = 4,  // bits of a table's index
    parameter CW     = 16,
    parameter AW     = 24
) (
    input  wire          clk,
    input  wire          rst,
    input  wire          start,
    input  wire [CW-1:0] cfg_steps,
    input  wire [CW-1:0] cfg_left,
    input  wire [CW-1:0] cfg_top,
    input  wire [CW-1:0] cfg_groups,
    output wire          issue,
    output reg  [AW-1:0] left_addr,
    output reg  [AW-1:0] top_addr,
    output reg  [   3:0] plane_a,
    output reg  [   3:0] plane_w,
    output reg           valid,    // these five go with the words read
    output reg           first,
    output reg           last,
    output reg           twice,
    output reg           negate,
    output wire          shift,
    output wire          ending,   // the last operands of the run are read in this cycle
    output reg           out_valid,
    output reg           out_last,
    output reg  [TW-1:0] out_fold   // group * column folds + column fold
);
    localparam SERIAL = (PA > 1 || PW > 1);
    localparam integer DRAIN = 2 * ROWS + COLS;
    localparam [CW-1:0] CORNER = ROWS[CW-1:0] + COLS[CW-1:0] - 1;
    localparam [CW-1:0] SHIFTS = ROWS[CW-1:0];
    localparam [CW-1:0] PERIOD = DRAIN[CW-1:0];
    localparam [CW-1:0] ONE = 1;

    reg running, stopping;
    reg [CW-1:0] step, row, col, group, travel, shifts, gap;
    reg [TW-1:0] fold;
    reg [AW-1:0] left_group, left_tile, top_tile;
    wire opening, fresh, closing, plane_negate;
    wire [3:0] now_a, now_w;

    wire step_last = step + ONE == cfg_steps;
    wire row_last = row + ONE == cfg_left;
    wire col_last = col + ONE == cfg_top;
    wire group_last = group + ONE == cfg_groups;
    wire tile_last = step_last && closing;
    wire waits = SHADOW != 0 ? (opening && step == 0 && gap != 0) : shifts != 0;
    wire ends = issue && tile_last;
    wire [AW-1:0] left_next = left_addr + 1;
    wire [AW-1:0] top_next = top_addr + 1;

    assign issue = running && !waits;
    assign shift = travel == 0 && shifts != 0;
    assign ending = ends && row_last && col_last && group_last;

    generate
        if (SERIAL) begin : g_serial
            bf_planes #(.WB(PW), .AB(PA), .W_FMT(W_FMT), .A_FMT(A_FMT)) planes (
                .clk(clk), .restart(rst || start), .next(issue && step_last),
                .plane_a(now_a), .plane_w(now_w), .opening(opening), .fresh(fresh),
                .closing(closing), .negate(plane_negate)
            );
        end else begin : g_whole
            assign {now_a, now_w, opening, fresh, closing, plane_negate} = {8'd0, 4'b1010};
        end
    endgenerate

    always @(posedge clk) begin
        valid   <= issue && !rst;
        first   <= issue && opening && step == 0;
        last    <= ends && !rst;
        twice   <= issue && fresh && step == 0;
        negate  <= plane_negate;
        plane_a <= now_a;
        plane_w <= now_w;
    end

    // Operand steps and tiles.
    always @(posedge clk) begin
        if (rst) begin
            running <= 1'b0;
        end else if (start) begin
            running <= 1'b1;
            {step, row, col, group} <= {4 * CW{1'b0}};
            fold <= {TW{1'b0}};
            {left_addr, left_group, left_tile} <= {3 * AW{1'b0}};
            {top_addr, top_tile} <= {2 * AW{1'b0}};
        end else if (issue) begin
            step <= step_last ? 0 : step + ONE;
            left_addr <= step_last ? left_tile : left_next;
            top_addr <= step_last ? top_tile : top_next;
            if (tile_last) begin
                row <= row_last ? 0 : row + ONE;
                left_tile <= row_last && !col_last ? left_group : left_next;
                left_addr <= row_last && !col_last ? left_group : left_next;
                if (row_last) begin
                    col <= col_last ? 0 : col + ONE;
                    fold <= fold + 1'b1;
                    top_tile <= top_next;
                    top_addr <= top_next;
                    if (col_last) begin
                        group <= group + ONE;
                        left_group <= left_next;
                        running <= !group_last;
                    end
                end
            end
        end
    end

    // The drain: ROWS shifts, when the last operands issued have reached the far corner. Counters
    // run down to zero, so that the size of the array is no more than what they are loaded with.
    always @(posedge clk) begin
        out_valid <= shift && !rst;
        out_last  <= shift && shifts == ONE && stopping;
        if (rst) begin
            {travel, shifts} <= {2 * CW{1'b0}};
        end else if (ends) begin
            travel   <= CORNER;
            shifts   <= SHIFTS;
            out_fold <= fold;
            stopping <= row_last && col_last && group_last;
        end else if (travel != 0) begin
            travel <= travel - ONE;
        end else if (shifts != 0) begin
            shifts <= shifts - ONE;
        end
    end

    generate
        if (SHADOW != 0) begin : g_gap
            always @(posedge clk) begin
                if (rst) gap <= 0;
                else if (issue && opening && step == 0) gap <= PERIOD - ONE;
                else if (gap != 0) gap <= gap - ONE;
            end
        end else begin : g_no_gap
            always @(posedge clk) gap <= 0;
        end
    endgenerate
endmodule
