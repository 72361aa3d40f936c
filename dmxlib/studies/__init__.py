"""What was asked once: a question, a table, a folder in results/ each."""
