// Behavioural DRAM behind one port: a transfer of whole bursts at a time. The first word moves
// cfg_latency cycles after the request; then a word of cfg_width bytes moves whenever the sustained
// rate, cfg_rate_num / cfg_rate_den bytes a cycle, has earned it. It counts what it moved.
module bf_dram (
    input  wire        clk,
    input  wire        rst,
    input  wire [31:0] cfg_width,
    input  wire [31:0] cfg_latency,
    input  wire [31:0] cfg_burst,
    input  wire [31:0] cfg_rate_num,
    input  wire [31:0] cfg_rate_den,
    input  wire        request,     // taken in a cycle with idle or last
    input  wire        write,
    input  wire [63:0] bursts,      // at least one
    output wire        idle,
    output wire        last,        // the last word of the transfer moves in this cycle
    output reg  [63:0] bytes_read,
    output reg  [63:0] bytes_written
);
    reg [63:0] left, credit;
    reg [31:0] waiting;
    reg writing;
    wire [63:0] word = left < {32'd0, cfg_width} ? left : {32'd0, cfg_width};
    wire [63:0] price = word * cfg_rate_den;
    wire [63:0] earned = credit + {32'd0, cfg_rate_num};
    wire beat = left != 0 && waiting == 0 && earned >= price;

    assign idle = left == 0;
    assign last = beat && word == left;

    always @(posedge clk) begin
        if (rst) begin
            {left, credit, waiting, writing} <= 0;
            {bytes_read, bytes_written} <= 0;
        end else begin
            if (waiting != 0) waiting <= waiting - 1;
            else if (left != 0) credit <= beat ? earned - price : earned;
            if (beat) begin
                left <= left - word;
                if (writing) bytes_written <= bytes_written + word;
                else bytes_read <= bytes_read + word;
            end
            if (request) begin
                left    <= bursts * cfg_burst;
                waiting <= cfg_latency;
                credit  <= 0;
                writing <= write;
            end
        end
    end
endmodule
