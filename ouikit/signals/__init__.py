"""What is read off activation patterns and what it predicts. Imports the face of `ouikit` only."""
