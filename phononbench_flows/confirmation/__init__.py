"""What better methods, DFT mostly, say of judged crystals: drawn at random, handed out, collected, imported."""
