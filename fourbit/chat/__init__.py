"""`fourbit chat`: a conversation with a model in the terminal.

A model that is opened after its memory was planned (talker), what was said and how much of it fits into the context
(conversation), words in a terminal (text), and commands and answers in turn (session).
"""
