"""Terminal output: styled text, Markdown, reasoning, and the rows that may still change."""
