// The controller of the stationary dataflows. For every group, fold of the top operand and chunk
// of the stream: one visit for each pair of bit planes (serial only) and depth fold. A visit loads
// ROWS words of the stationary operand and streams the chunk past them.
// Memory order: left (group, chunk, depth fold, position), top (group, fold, depth fold, row from
// the last to the first).
// SHADOW 0: load, stream, wait until the last position has left the array. SHADOW 1: the next
// visit is loaded meanwhile; visits start at least 2 ROWS + COLS - 1 apart.
// The next run may start with left_last; its first operand is loaded then, when the last swap has
// crossed the array.
module bf_control_ws #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter SHADOW = 0,
    parameter PA     = 1,
    parameter PW     = 1,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter CW     = 16,
    parameter AW     = 24
) (
    input  wire          clk,
    input  wire          rst,
    input  wire          start,
    input  wire [CW-1:0] cfg_stream,       // positions of a chunk
    input  wire [CW-1:0] cfg_stream_last,  // positions of the last chunk
    input  wire [CW-1:0] cfg_chunks,
    input  wire [CW-1:0] cfg_folds,        // folds of the depth
    input  wire [CW-1:0] cfg_top,          // folds of the top operand
    input  wire [CW-1:0] cfg_groups,
    output wire          left_read,
    output reg  [AW-1:0] left_addr,
    output reg  [   3:0] plane_a,    // both as of the stream; the load has its own
    output reg  [   3:0] plane_w,
    output reg  [   3:0] load_plane_a,
    output reg  [   3:0] load_plane_w,
    output wire          top_read,
    output reg  [AW-1:0] top_addr,
    output reg           load,       // with the word of the top memory
    output reg           swap,       // with the word of the left memory
    output wire [CW-1:0] position,   // these five with the address of the left memory
    output wire          first,
    output wire          final_visit,
    output wire          twice,
    output wire          negate,
    output wire [CW-1:0] table_top,
    output wire [CW-1:0] table_left,
    output wire          left_last
);
    localparam SERIAL = (PA > 1 || PW > 1);
    localparam [CW-1:0] ONE = 1;
    localparam [CW-1:0] LOADS = ROWS[CW-1:0];
    localparam integer WAIT = ROWS + COLS - 2;
    localparam [CW-1:0] WAITS = WAIT[CW-1:0];
    localparam integer PERIOD = 2 * ROWS + COLS - 1;
    localparam [CW-1:0] PERIODS = PERIOD[CW-1:0];

    // The stream.
    reg running;
    reg [CW-1:0] spot, fold, chunk, col, group, tables, filter, filter_chunk, filter_group;
    reg [AW-1:0] left_chunk, left_group;
    wire opening, fresh, closing, plane_negate;
    wire [3:0] now_a, now_w;
    wire go;  // a position may be issued
    wire chunk_last = chunk + ONE == cfg_chunks;
    wire [CW-1:0] length = chunk_last ? cfg_stream_last : cfg_stream;
    wire spot_last = spot + ONE == length;
    wire fold_last = fold + ONE == cfg_folds;
    wire col_last = col + ONE == cfg_top;
    wire group_last = group + ONE == cfg_groups;
    wire visit_last = left_read && spot_last;
    wire pass_last = visit_last && fold_last;
    wire chunk_done = pass_last && closing;
    wire [AW-1:0] left_next = left_addr + 1;

    assign left_read = running && go;
    assign position = spot;
    assign first = opening && fold == 0;
    assign final_visit = closing && fold_last;
    assign twice = fresh && fold == 0;
    assign negate = plane_negate;
    assign table_top = tables;
    assign table_left = filter;
    assign left_last = chunk_done && chunk_last && col_last && group_last;

    always @(posedge clk) begin
        plane_a <= now_a;
        plane_w <= now_w;
        if (rst) begin
            running <= 1'b0;
        end else if (start) begin
            running <= 1'b1;
            {spot, fold, chunk, col, group, tables} <= {6 * CW{1'b0}};
            {filter, filter_chunk, filter_group} <= {3 * CW{1'b0}};
            {left_addr, left_chunk, left_group} <= {3 * AW{1'b0}};
        end else if (left_read) begin
            spot <= spot_last ? 0 : spot + ONE;
            left_addr <= left_next;
            filter <= spot_last ? filter_chunk : filter + ONE;
            if (spot_last) fold <= fold_last ? 0 : fold + ONE;
            if (pass_last && !closing) left_addr <= left_chunk;
            if (chunk_done) begin
                chunk <= chunk_last ? 0 : chunk + ONE;
                left_chunk <= left_next;
                filter <= filter + ONE;
                filter_chunk <= filter + ONE;
                if (chunk_last) begin
                    col <= col_last ? 0 : col + ONE;
                    tables <= tables + ONE;
                    if (col_last) begin
                        group <= group + ONE;
                        left_group <= left_next;
                        filter_group <= filter + ONE;
                        running <= !group_last;
                    end else begin
                        left_addr <= left_group;
                        left_chunk <= left_group;
                        filter <= filter_group;
                        filter_chunk <= filter_group;
                    end
                end
            end
        end
    end

    // The loader: the same visits, ROWS words each.
    reg [CW-1:0] load_row, load_fold, load_chunk, load_col, load_group;
    reg [AW-1:0] top_base;
    reg loading;
    wire load_go;
    wire load_opening, load_fresh, load_closing, load_negate;
    wire [3:0] load_a, load_w;
    wire load_row_last = load_row + ONE == LOADS;
    wire load_fold_last = load_fold + ONE == cfg_folds;
    wire load_chunk_last = load_chunk + ONE == cfg_chunks;
    wire load_col_last = load_col + ONE == cfg_top;
    wire load_pass = top_read && load_row_last && load_fold_last;
    wire [AW-1:0] top_next = top_addr + 1;

    assign top_read = loading && load_go;

    always @(posedge clk) begin
        load_plane_a <= load_a;
        load_plane_w <= load_w;
        load <= top_read;
        if (rst) begin
            loading <= 1'b0;
        end else if (start) begin
            loading <= 1'b1;
            {load_row, load_fold, load_chunk, load_col, load_group} <= {5 * CW{1'b0}};
            {top_addr, top_base} <= {2 * AW{1'b0}};
        end else if (top_read) begin
            load_row <= load_row_last ? 0 : load_row + ONE;
            top_addr <= load_pass ? top_base : top_next;
            if (load_row_last) load_fold <= load_fold_last ? 0 : load_fold + ONE;
            if (load_pass && load_closing) begin
                load_chunk <= load_chunk_last ? 0 : load_chunk + ONE;
                if (load_chunk_last) begin
                    top_base <= top_next;
                    top_addr <= top_next;
                    load_col <= load_col_last ? 0 : load_col + ONE;
                    if (load_col_last) begin
                        load_group <= load_group + ONE;
                        loading <= load_group + ONE != cfg_groups;
                    end
                end
            end
        end
    end

    generate
        if (SERIAL) begin : g_serial
            bf_planes #(.WB(PW), .AB(PA), .W_FMT(W_FMT), .A_FMT(A_FMT)) stream_planes (
                .clk(clk), .restart(rst || start), .next(pass_last), .plane_a(now_a),
                .plane_w(now_w), .opening(opening), .fresh(fresh), .closing(closing),
                .negate(plane_negate)
            );
            bf_planes #(.WB(PW), .AB(PA), .W_FMT(W_FMT), .A_FMT(A_FMT)) load_planes (
                .clk(clk), .restart(rst || start), .next(load_pass), .plane_a(load_a),
                .plane_w(load_w), .opening(load_opening), .fresh(load_fresh),
                .closing(load_closing), .negate(load_negate)
            );
        end else begin : g_whole
            assign {now_a, now_w, opening, fresh, closing, plane_negate} = {8'd0, 4'b1010};
            assign {load_a, load_w, load_opening, load_fresh, load_closing, load_negate} =
                {8'd0, 4'b1010};
        end
    endgenerate
    wire unused = &{1'b0, load_opening, load_fresh, load_negate};

    // Who may go when.
    generate
        if (SHADOW != 0) begin : g_double
            // since: cycles since the last swap was issued; it stays at PERIOD.
            reg [CW-1:0] since;
            reg primed, padding;
            wire ripe = since >= PERIODS;
            reg loaded;
            wire prime = running && !primed && loaded;
            // The swap goes with the last position, or later where the visit is shorter.
            wire swap_now = prime || (visit_last && !left_last && ripe) || (padding && ripe);
            wire crossed = since + ONE >= LOADS + COLS[CW-1:0];
            assign go = primed && !padding;
            assign load_go = crossed && (primed ? since < PERIODS : !loaded);
            always @(posedge clk) begin
                swap <= swap_now && !rst;
                if (rst) since <= PERIODS;
                else if (swap_now) since <= ONE;
                else if (!ripe) since <= since + ONE;
                if (rst || start) begin
                    {primed, padding, loaded} <= 3'b000;
                end else begin
                    if (top_read && load_row_last) loaded <= 1'b1;
                    if (prime) primed <= 1'b1;
                    padding <= ((visit_last && !left_last) || padding) && !swap_now;
                end
            end
        end else begin : g_single
            // One after the other: ROWS loads, the stream, WAITS cycles.
            reg [CW-1:0] left;
            reg filled;
            assign load_go = !filled && left == 0;
            assign go = filled;
            always @(posedge clk) begin
                swap <= 1'b0;
                if (rst) begin
                    filled <= 1'b0;
                    left <= 0;
                end else begin
                    if (top_read && load_row_last) filled <= 1'b1;
                    if (visit_last) begin
                        filled <= 1'b0;
                        left <= WAITS;
                    end else if (left != 0) begin
                        left <= left - ONE;
                    end
                end
            end
            localparam [CW-1:0] UNUSED_PERIOD = PERIODS;
            wire unused_period = &{1'b0, UNUSED_PERIOD};
        end
    endgenerate
endmodule
