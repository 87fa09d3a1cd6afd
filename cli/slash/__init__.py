"""The slash commands of `chat`: one table, from which help and completion are made, and what each does."""
