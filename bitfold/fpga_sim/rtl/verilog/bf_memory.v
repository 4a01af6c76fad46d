// Simple dual-port memory: one write port, one read port with a registered output (block RAM).
module bf_memory #(
    parameter WIDTH = 32,
    parameter DEPTH = 1024,
    parameter AW    = 10
) (
    input  wire             clk,
    input  wire             write,
    input  wire [   AW-1:0] write_addr,
    input  wire [WIDTH-1:0] write_data,
    input  wire             read,
    input  wire [   AW-1:0] read_addr,
    output reg  [WIDTH-1:0] read_data
);
    reg [WIDTH-1:0] words [0:DEPTH-1];
    always @(posedge clk) begin
        if (write) words[write_addr] <= write_data;
        if (read) read_data <= words[read_addr];
    end
endmodule
