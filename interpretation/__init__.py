"""What features show: pictures that activate them, explanations, scores, and what is known without asking anyone."""
