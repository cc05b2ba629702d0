"""What is kept: nbgrader's gradebook, which one writer keeps, and the journal by which a killed run goes on."""
