// What moves for each block of a layer, from where the block lies: the loader knows how far the
// input map has been read and which filters' constants are on chip, and asks for the rest; the
// writer sends what the block's outputs take. The map is read ahead with the output's place in its
// row, so that rows come in even parts: for the output pixel q of width W, q / W * stride + kernel
// - padding rows. Every tensor is packed without gaps, and what is moved of it is rounded up to
// bursts.
module bf_loader (
    input  wire        clk,
    input  wire        rst,
    // The layer: output pixels and their width, filters of all groups and of one.
    input  wire [31:0] cfg_pixels,
    input  wire [31:0] cfg_width,
    input  wire [31:0] cfg_filters,
    input  wire [31:0] cfg_group_filters,
    // Its input map and kernel, in rows.
    input  wire [31:0] cfg_height,
    input  wire [31:0] cfg_kernel,
    input  wire [31:0] cfg_stride,
    input  wire [31:0] cfg_pad,
    // Its tensors in bytes: constants of all filters, input map, other operands, results.
    input  wire [31:0] cfg_constants,
    input  wire [31:0] cfg_inputs,
    input  wire [31:0] cfg_others,
    input  wire [31:0] cfg_writes,
    // Pixels of a row fold, filters of a column fold, column folds of a group; bytes of a burst.
    input  wire [31:0] cfg_fold_pixels,
    input  wire [31:0] cfg_fold_filters,
    input  wire [31:0] cfg_group_folds,
    input  wire [31:0] cfg_burst,
    // The next block to load, and the next one to store: first row fold, row folds, first column
    // fold, column folds.
    input  wire [127:0] load_block,
    input  wire [127:0] store_block,
    input  wire         load_take,
    output wire  [63:0] load_bursts,
    output wire  [63:0] store_bursts,
    output wire         missing        // the map lacks a row that the block's windows read
);
    reg held;                      // whether there was a block before
    reg [31:0] held_row, held_col; // its folds
    reg [63:0] held_bytes;         // of the map, read in this sweep

    function [31:0] smaller(input [31:0] a, input [31:0] b);
        smaller = a < b ? a : b;
    endfunction

    // The first pixel of a row fold; the first filter of a column fold.
    function [31:0] pixel_at(input [31:0] fold);
        pixel_at = smaller(fold * cfg_fold_pixels, cfg_pixels);
    endfunction
    function [31:0] filter_at(input [31:0] fold);
        filter_at = fold / cfg_group_folds * cfg_group_filters
            + smaller(fold % cfg_group_folds * cfg_fold_filters, cfg_group_filters);
    endfunction

    // Bursts of part / whole of a tensor.
    function [63:0] bursts_of(input [31:0] tensor, input [63:0] part, input [63:0] whole);
        reg [63:0] bytes;
        begin
            bytes = (tensor * part + whole - 1) / whole;
            bursts_of = (bytes + cfg_burst - 1) / cfg_burst;
        end
    endfunction

    // Outputs of a block: bursts of their share of a tensor that is as large as the outputs.
    function [63:0] outputs_of(input [31:0] tensor, input [127:0] block);
        reg [63:0] pixels, filters, all;
        begin
            pixels = pixel_at(block[127:96] + block[95:64]) - pixel_at(block[127:96]);
            filters = filter_at(block[63:32] + block[31:0]) - filter_at(block[63:32]);
            all = cfg_pixels;
            outputs_of = bursts_of(tensor, pixels * filters, all * cfg_filters);
        end
    endfunction

    // How far the map is read for the block; the last block of a sweep takes what is left of it.
    wire [31:0] pixels_end = pixel_at(load_block[127:96] + load_block[95:64]);
    wire [63:0] last_pixel = pixels_end - 1;
    wire [63:0] above = {32'd0, cfg_pad} * cfg_width;  // in parts of a row: one each output pixel
    wire [63:0] below = last_pixel * cfg_stride + {32'd0, cfg_kernel} * cfg_width;
    wire [63:0] map_parts = {32'd0, cfg_height} * cfg_width;
    wire [63:0] parts = below <= above ? 0 : below - above;
    wire [63:0] bytes =
        pixels_end == cfg_pixels || parts >= map_parts ? {32'd0, cfg_inputs}
        : (cfg_inputs * parts + map_parts - 1) / map_parts;

    // The row behind the last one that its windows read, for the check.
    wire [63:0] row_end = last_pixel / cfg_width * cfg_stride + cfg_kernel;
    wire [63:0] whole = row_end <= cfg_pad ? 0
        : row_end - cfg_pad > cfg_height ? {32'd0, cfg_height} : row_end - cfg_pad;
    assign missing = bytes * cfg_height < cfg_inputs * whole;

    wire other_rows = !held || held_row != load_block[127:96];
    wire other_filters = !held || held_col != load_block[63:32];
    wire [63:0] have = load_block[127:96] == 0 ? 0 : held_bytes;
    wire [63:0] new_bytes = bytes > have ? bytes - have : 0;
    wire [63:0] new_filters =
        filter_at(load_block[63:32] + load_block[31:0]) - filter_at(load_block[63:32]);
    wire [63:0] filters = cfg_filters;

    assign load_bursts = (other_rows ? (new_bytes + cfg_burst - 1) / cfg_burst : 0)
        + (other_filters ? bursts_of(cfg_constants, new_filters, filters) : 0)
        + outputs_of(cfg_others, load_block);
    assign store_bursts = outputs_of(cfg_writes, store_block);

    always @(posedge clk) begin
        if (rst) begin
            {held, held_row, held_col, held_bytes} <= 0;
        end else if (load_take) begin
            held     <= 1'b1;
            held_row <= load_block[127:96];
            held_col <= load_block[63:32];
            if (other_rows) held_bytes <= bytes;
        end
    end
endmodule
