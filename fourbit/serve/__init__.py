"""`fourbit serve`: a model on this machine behind the HTTP interface that OpenAI's clients speak, and a chat page.

What a request may say (requests) and what goes back (replies, errors); who comes next (turns); what is let in at all
(guard, connection); the routes (app); the process around them (server). The page is three files in page/.
"""
