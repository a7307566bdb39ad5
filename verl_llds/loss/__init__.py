"""The LLDS loss: pure tensor maths here, its registration with verl in a module of its own."""
