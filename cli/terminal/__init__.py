"""What is shown at a terminal: styled text, Markdown, reasoning, and the rows that may still change."""
