// Requantization of one column: index = #{j : t[j] <= acc}, or COUNT - that where flip is set (a
// negative gain), plus OFFSET: the operand of the next layer, OB bits.
// SEARCH 0: COUNT parallel comparators. SEARCH 1: a binary search of OB pipelined comparators.
// Thresholds have ACC + 1 bits, so that one beyond every sum can be written.
// Table entry 0 is least; an entry past COUNT must hold the greatest number.
// A unit of its own for synthesis.
(* keep_hierarchy *)
module bf_threshold #(
    parameter ACC    = 16,
    parameter OB     = 2,
    parameter COUNT  = 3,
    parameter OFFSET = 0,
    parameter SEARCH = 0,
    parameter DEPTH  = 16,  // tables: one for each column fold, or each filter
    parameter TW     = 4
) (
    input  wire           clk,
    input  wire           load,        // one entry of one table a cycle
    input  wire [ TW-1:0] load_table,
    input  wire [ OB-1:0] load_entry,  // entry 2^OB - 1 is the flip flag
    input  wire [  ACC:0] load_value,
    input  wire [ TW-1:0] table_index,
    input  wire [ACC-1:0] acc,
    output wire [ OB-1:0] code
);
    localparam [OB-1:0] ALL = COUNT[OB-1:0];
    localparam [OB-1:0] LOW = OFFSET[OB-1:0];
    localparam [OB-1:0] FLIP = {OB{1'b1}};
    wire signed [ACC:0] value = {acc[ACC-1], acc};
    reg flips [0:DEPTH-1];
    always @(posedge clk) if (load && load_entry == FLIP) flips[load_table] <= load_value[0];

    genvar j;
    generate
        if (SEARCH == 0) begin : g_parallel
            wire [COUNT-1:0] reached;
            for (j = 0; j < COUNT; j = j + 1) begin : g_comparator
                localparam [OB-1:0] ENTRY = j;
                reg signed [ACC:0] entries [0:DEPTH-1];
                wire signed [ACC:0] entry = entries[table_index];
                always @(posedge clk)
                    if (load && load_entry == ENTRY) entries[load_table] <= load_value;
                assign reached[j] = entry <= value;
            end
            reg [OB-1:0] count, held;
            integer n;
            always @* begin
                count = {OB{1'b0}};
                for (n = 0; n < COUNT; n = n + 1) count = count + {{(OB - 1) {1'b0}}, reached[n]};
            end
            always @(posedge clk) held <= (flips[table_index] ? ALL - count : count) + LOW;
            assign code = held;
        end else begin : g_search
            // Stage s settles bit OB-1-s: the prefix found so far is the high part of the index,
            // and the index has the bit where entry {prefix, 1, 0...} - 1 is reached.
            wire [(OB+1)*(ACC+1)-1:0] values;
            wire [(OB+1)*TW-1:0] indices;
            wire [(OB+1)*OB-1:0] found;
            assign values[ACC:0] = value;
            assign indices[TW-1:0] = table_index;
            assign found[OB-1:0] = {OB{1'b0}};
            for (j = 0; j < OB; j = j + 1) begin : g_stage
                localparam BIT = OB - 1 - j;
                localparam [OB-1:0] MASK = 1 << BIT;
                reg signed [ACC:0] entries [0:(DEPTH << j) - 1];
                reg signed [ACC:0] value_held;
                reg [TW-1:0] index_held;
                reg [OB-1:0] found_held;
                wire [OB-1:0] prefix = found[j*OB +: OB];
                wire signed [ACC:0] here = values[j*(ACC+1) +: ACC+1];
                wire [TW-1:0] index = indices[j*TW +: TW];
                wire signed [ACC:0] entry;
                // Entry e is at stage s where e + 1 = {prefix, 1, 0...}.
                wire [OB-1:0] rank = load_entry + {{(OB - 1) {1'b0}}, 1'b1};
                wire mine = load && rank != 0 && (rank & (MASK | (MASK - 1'b1))) == MASK;
                if (j == 0) begin : g_root
                    assign entry = entries[index];
                    always @(posedge clk) if (mine) entries[load_table] <= load_value;
                    wire unused = &{1'b0, rank, prefix};
                end else begin : g_branch
                    assign entry = entries[{index, prefix[OB-1 -: j]}];
                    always @(posedge clk)
                        if (mine) entries[{load_table, rank[OB-1 -: j]}] <= load_value;
                end
                always @(posedge clk) begin
                    value_held <= here;
                    index_held <= index;
                    found_held <= entry <= here ? prefix | MASK : prefix;
                end
                assign values[(j+1)*(ACC+1) +: ACC+1] = value_held;
                assign indices[(j+1)*TW +: TW] = index_held;
                assign found[(j+1)*OB +: OB] = found_held;
            end
            wire [TW-1:0] index_end = indices[OB*TW +: TW];
            wire [OB-1:0] count = found[OB*OB +: OB];
            assign code = (flips[index_end] ? ALL - count : count) + LOW;
            wire unused_end = &{1'b0, values[OB*(ACC+1) +: ACC+1]};
        end
    endgenerate
endmodule
