// The controller of the stationary dataflows. For every group, fold of the top operand and chunk
// of the stream: one visit for each pair of bit planes (serial only) and depth fold. A visit loads
// ROWS words of the stationary operand and streams the chunk past them.
// Memory order: left (group, chunk, depth fold, position), top (group, fold, depth fold, row from
// the last to the first).
// SHADOW 0: load, stream, wait until the last position has left the array. SHADOW 1: the next
// visit is loaded meanwhile; visits start at least 2 ROWS + COLS - 1 apart.
// The next run may start with left_last; its first operand is loaded then, when the last swap has
// crossed the array.
// A unit of its own for synthesis.
(* keep_hierarchy *)
module bf_control_ws #(
    parameter ROWS   = 8,
    parameter COLS   = 8,
    parameter SHADOW = 0,
    parameter PA     = 1,
    parameter PW     = 1,
    parameter W_FMT  = 1,
    parameter A_FMT  = 0,
    parameter ROLE   = 0,  // 1: tables go by filters, which stream
    parameter TW     = 4,  // bits of a table's index
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
    output wire [AW-1:0] left_addr,
    output reg  [   3:0] plane_a,    // both as of the stream; the load has its own
    output reg  [   3:0] plane_w,
    output reg  [   3:0] load_plane_a,
    output reg  [   3:0] load_plane_w,
    output wire          top_read,
    output wire [AW-1:0] top_addr,
    output reg           load,       // with the word of the top memory
    output reg           swap,       // with the word of the left memory
    output wire [CW-1:0] position,   // these with the address of the left memory
    output wire          first,
    output wire          final_visit,
    output wire          twice,
    output wire          negate,
    output wire [TW-1:0] table_index,
    output wire          left_last
);
    localparam SERIAL = (PA > 1 || PW > 1);
    localparam [CW-1:0] ONE = 1;
    // Counters run down to zero, so that the size of the array is no more than what they start from.
    localparam [CW-1:0] LOADS = ROWS[CW-1:0] - 1;
    localparam integer WAIT = ROWS + COLS - 2;
    localparam [CW-1:0] WAITS = WAIT[CW-1:0];
    localparam integer PERIOD = 2 * ROWS + COLS - 2;
    localparam [CW-1:0] PERIODS = PERIOD[CW-1:0];

    // The stream.
    reg running;
    wire [CW-1:0] spot, fold, chunk, col, group;
    reg [AW-1:0] left_chunk, left_group;
    wire [AW-1:0] left_next;
    wire opening, fresh, closing, plane_negate;
    wire [3:0] now_a, now_w;
    wire go;  // a position may be issued
    wire spot_last, fold_last, chunk_last, col_last, group_last;
    wire [CW-1:0] length = chunk_last ? cfg_stream_last : cfg_stream;
    wire visit_last = left_read && spot_last;
    wire pass_last = visit_last && fold_last;
    wire chunk_done = pass_last && closing;
    wire fold_done = chunk_done && chunk_last;  // of the top operand
    wire group_done = fold_done && col_last;
    wire again = fold_done && !col_last;  // the group's positions, for the next fold

    assign left_read = running && go;
    assign position = spot;
    assign first = opening && fold == 0;
    assign final_visit = closing && fold_last;
    assign twice = fresh && fold == 0;
    assign negate = plane_negate;
    assign left_last = group_done && group_last;

    bf_counter #(.W(CW)) spots (
        .clk(clk), .clear(start), .step(left_read), .limit(length), .value(spot), .last(spot_last)
    );
    bf_counter #(.W(CW)) folds (
        .clk(clk), .clear(start), .step(visit_last), .limit(cfg_folds), .value(fold),
        .last(fold_last)
    );
    bf_counter #(.W(CW)) chunks (
        .clk(clk), .clear(start), .step(chunk_done), .limit(cfg_chunks), .value(chunk),
        .last(chunk_last)
    );
    bf_counter #(.W(CW)) cols (
        .clk(clk), .clear(start), .step(fold_done), .limit(cfg_top), .value(col), .last(col_last)
    );
    bf_counter #(.W(CW)) groups (
        .clk(clk), .clear(start), .step(group_done), .limit(cfg_groups), .value(group),
        .last(group_last)
    );
    bf_cursor #(.W(AW)) lefts (
        .clk(clk), .clear(start), .step(left_read), .jump(again || (pass_last && !closing)),
        .target(again ? left_group : left_chunk), .value(left_addr), .next(left_next)
    );

    always @(posedge clk) begin
        plane_a <= now_a;
        plane_w <= now_w;
        if (rst) running <= 1'b0;
        else if (start) running <= 1'b1;
        else if (left_last) running <= 1'b0;
        if (start) left_chunk <= {AW{1'b0}};
        else if (chunk_done) left_chunk <= again ? left_group : left_next;
        if (start) left_group <= {AW{1'b0}};
        else if (group_done) left_group <= left_next;
    end

    // Whose thresholds the sums meet: of a group's column fold, or of a filter.
    generate
        if (ROLE == 0) begin : g_folds
            reg [TW-1:0] tables;
            assign table_index = tables;
            always @(posedge clk)
                if (start) tables <= 0;
                else if (fold_done) tables <= tables + 1'b1;
        end else begin : g_filters
            reg [TW-1:0] filter, filter_chunk, filter_group;
            wire [TW-1:0] filter_next = filter + 1'b1;
            assign table_index = filter;
            always @(posedge clk)
                if (start) begin
                    {filter, filter_chunk, filter_group} <= {3 * TW{1'b0}};
                end else if (left_read) begin
                    filter <= spot_last ? filter_chunk : filter_next;
                    if (chunk_done) begin
                        filter <= filter_next;
                        filter_chunk <= filter_next;
                        if (group_done) begin
                            filter_group <= filter_next;
                        end else if (again) begin
                            filter <= filter_group;
                            filter_chunk <= filter_group;
                        end
                    end
                end
        end
    endgenerate

    // The loader: the same visits, ROWS words each.
    reg [CW-1:0] load_row;
    wire [CW-1:0] load_fold, load_chunk, load_col, load_group;
    reg [AW-1:0] top_base;
    wire [AW-1:0] top_next;
    reg loading;
    wire load_go;
    wire load_opening, load_fresh, load_closing, load_negate;
    wire [3:0] load_a, load_w;
    wire load_row_last = load_row == 0;
    wire load_fold_last, load_chunk_last, load_col_last, load_group_last;
    wire load_visit = top_read && load_row_last;
    wire load_pass = load_visit && load_fold_last;
    wire load_chunk_done = load_pass && load_closing;
    wire load_done = load_chunk_done && load_chunk_last;
    wire load_group_done = load_done && load_col_last;

    assign top_read = loading && load_go;

    bf_counter #(.W(CW)) load_folds (
        .clk(clk), .clear(start), .step(load_visit), .limit(cfg_folds), .value(load_fold),
        .last(load_fold_last)
    );
    bf_counter #(.W(CW)) load_chunks (
        .clk(clk), .clear(start), .step(load_chunk_done), .limit(cfg_chunks), .value(load_chunk),
        .last(load_chunk_last)
    );
    bf_counter #(.W(CW)) load_cols (
        .clk(clk), .clear(start), .step(load_done), .limit(cfg_top), .value(load_col),
        .last(load_col_last)
    );
    bf_counter #(.W(CW)) load_groups (
        .clk(clk), .clear(start), .step(load_group_done), .limit(cfg_groups), .value(load_group),
        .last(load_group_last)
    );
    bf_cursor #(.W(AW)) tops (
        .clk(clk), .clear(start), .step(top_read), .jump(load_pass && !load_done),
        .target(top_base), .value(top_addr), .next(top_next)
    );

    always @(posedge clk) begin
        load_plane_a <= load_a;
        load_plane_w <= load_w;
        load <= top_read;
        if (rst) loading <= 1'b0;
        else if (start) loading <= 1'b1;
        else if (load_group_done && load_group_last) loading <= 1'b0;
        if (start) load_row <= LOADS;
        else if (top_read) load_row <= load_row_last ? LOADS : load_row - ONE;
        if (start) top_base <= {AW{1'b0}};
        else if (load_done) top_base <= top_next;
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
    wire unused = &{1'b0, load_opening, load_fresh, load_negate, chunk, col, group, load_fold,
                    load_chunk, load_col, load_group};

    // Who may go when.
    generate
        if (SHADOW != 0) begin : g_double
            // Cycles until the next swap may be issued, and until the last has crossed the array.
            reg [CW-1:0] ripening, crossing;
            reg primed, padding;
            wire ripe = ripening == 0;
            reg loaded;
            wire prime = running && !primed && loaded;
            // The swap goes with the last position, or later where the visit is shorter.
            wire swap_now = prime || (visit_last && !left_last && ripe) || (padding && ripe);
            wire crossed = crossing == 0;
            assign go = primed && !padding;
            assign load_go = crossed && (primed ? !ripe : !loaded);
            always @(posedge clk) begin
                swap <= swap_now && !rst;
                if (rst) begin
                    {ripening, crossing} <= {2 * CW{1'b0}};
                end else if (swap_now) begin
                    ripening <= PERIODS;
                    crossing <= WAITS;
                end else begin
                    if (!ripe) ripening <= ripening - ONE;
                    if (!crossed) crossing <= crossing - ONE;
                end
                if (rst || start) begin
                    {primed, padding, loaded} <= 3'b000;
                end else begin
                    if (load_visit) loaded <= 1'b1;
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
                    if (load_visit) filled <= 1'b1;
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
