ARG BASE_IMAGE
FROM ${BASE_IMAGE}

COPY requirements/app.txt /tmp/requirements/app.txt
RUN pip install -r /tmp/requirements/app.txt

WORKDIR /srv/shop
COPY --chown=shop:shop src/ ./
RUN python -m compileall -q .

USER shop
EXPOSE 8000
ENV SHOP_THRESHOLD=0.5
HEALTHCHECK --interval=30s CMD ["python", "-m", "shop", "--check"]
ENTRYPOINT ["python", "-m", "shop"]
CMD ["--help"]
