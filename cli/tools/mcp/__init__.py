"""Tools of MCP servers (Model Context Protocol): programs and addresses that others write."""
