# Folders and files that are renamed, swapped, or become each other.
FROM base
RUN mkdir -p /x/y /s/1 /t/2 && echo 1 > /x/y/z && echo 2 > /f && ln -s f /l && touch /s/1/a /t/2/b
RUN mv /x/y /x/w && mv /x /v && mv /s /swap && mv /t /s && mv /swap /t
RUN rm -r /v && echo 3 > /v && rm /f && mkdir /f && touch /f/g && mv /s/2 /t/
RUN ln -sfn v /l && chmod 1750 /f && mv /f /moved && mv /t/1 /moved/ && mkdir /t/1
